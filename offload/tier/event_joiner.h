// EventJoiner: one Event for several.
//
// A block with several extents is read by several requests, but its copy has one ready Event. The joiner
// has a sleeping thread that waits for the Events of one join after the other, and then signals the
// joined Event: ok, or the first failure among them; in any case all of them have ended by then. Joins
// end in the order in which they were made.
//
// The thread is started by the first join: who never joins has none.
// Threads: join() from any thread; it waits while `capacity` joins are under way.
#pragma once

#include <array>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <thread>

#include "core/event.h"

namespace sluice::tier {

class EventJoiner {
 public:
  static constexpr size_t capacity = 64;

  EventJoiner() = default;
  EventJoiner(const EventJoiner&) = delete;
  EventJoiner& operator=(const EventJoiner&) = delete;
  ~EventJoiner();  // finishes what was joined

  // `events` stay in place until the result has signalled. The result does not outlive the joiner.
  Event join(std::span<const Event> events);

 private:
  // A place has its own Timeline, so that its failures are not pushed out by those of other joins.
  struct Place {
    Timeline timeline;
    uint64_t value = 0;
    std::span<const Event> events;
  };
  void run();

  std::mutex mutex_;
  std::condition_variable wanted_, free_;
  std::unique_ptr<std::array<Place, capacity>> places_;
  size_t next_in_ = 0, next_out_ = 0;  // counts; positions are modulo capacity
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace sluice::tier
