// EventJoiner: one Event for several, or for one and what has to be true behind it.
//
// A block with several extents is read by several requests, but its copy has one ready Event; and what
// comes back from the spill file is ready when its checksum has been found right. The joiner has a
// sleeping thread that waits for the Events of one join after the other, and then signals the joined
// Event: ok, or the first failure among them; in any case all of them have ended by then. Joins end in
// the order in which they were made.
//
// The thread is started by the first join: who never joins has none.
// Threads: join() and check() from any thread; they wait while `capacity` joins are under way.
#pragma once

#include <array>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <thread>

#include "core/block.h"
#include "core/event.h"

namespace sluice::tier {

// Bytes that were written to a place in the spill file, and lie in memory again.
struct SpillImage {
  BlockId block;
  const std::byte* data = nullptr;
  uint64_t offset = 0, bytes = 0;  // in the file
  uint64_t sum = 0;                // spill_sum() of what was written
};
// XXH3, 64 bits (https://github.com/Cyan4973/xxHash).
uint64_t spill_sum(const std::byte* data, uint64_t bytes);

class EventJoiner {
 public:
  static constexpr size_t capacity = 64;

  EventJoiner() = default;
  EventJoiner(const EventJoiner&) = delete;
  EventJoiner& operator=(const EventJoiner&) = delete;
  ~EventJoiner();  // finishes what was joined

  // `events` stay in place until the result has signalled. The result does not outlive the joiner.
  Event join(std::span<const Event> events);

  // Signals after `read`: its failure; else ok if the image is whole, or corrupt, naming the block.
  Event check(const Event& read, const SpillImage& image);

 private:
  // A place has its own Timeline, so that its failures are not pushed out by those of other joins.
  struct Place {
    Timeline timeline;
    uint64_t value = 0;
    std::span<const Event> events;
    Event read;  // what `events` shows where there is an image
    SpillImage image;
  };
  Place& take(std::unique_lock<std::mutex>& lock);
  Event give(Place& place);
  void run();

  std::mutex mutex_;
  std::condition_variable wanted_, free_;
  std::unique_ptr<std::array<Place, capacity>> places_;
  size_t next_in_ = 0, next_out_ = 0;  // counts; positions are modulo capacity
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace sluice::tier
