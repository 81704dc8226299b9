#include "offload/tier/event_joiner.h"

#include <xxhash.h>

#include "core/error.h"

namespace sluice::tier {

uint64_t spill_sum(const std::byte* data, uint64_t bytes) { return XXH3_64bits(data, bytes); }

namespace {

Status verify(const SpillImage& image) {
  const uint64_t found = spill_sum(image.data, image.bytes);
  if (found == image.sum) return {};
  return error(Code::corrupt,
               "block {}: the {} bytes at offset {} of the spill file came back changed (checksum {:016x}, written as "
               "{:016x}); check the disk of the spill directory",
               image.block.value, image.bytes, image.offset, found, image.sum);
}

}  // namespace

EventJoiner::~EventJoiner() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wanted_.notify_all();
  if (thread_.joinable()) thread_.join();
}

EventJoiner::Place& EventJoiner::take(std::unique_lock<std::mutex>& lock) {
  if (!thread_.joinable()) {
    places_ = std::make_unique<std::array<Place, capacity>>();
    thread_ = std::thread([this] { run(); });
  }
  free_.wait(lock, [this] { return next_in_ - next_out_ < capacity; });
  return (*places_)[next_in_++ % capacity];
}

Event EventJoiner::give(Place& place) {
  const Event joined(place.timeline, ++place.value);
  wanted_.notify_one();
  return joined;
}

Event EventJoiner::join(std::span<const Event> events) {
  std::unique_lock lock(mutex_);
  Place& place = take(lock);
  place.events = events;
  place.image = {};
  return give(place);
}

Event EventJoiner::check(const Event& read, const SpillImage& image) {
  std::unique_lock lock(mutex_);
  Place& place = take(lock);
  place.read = read;
  place.events = {&place.read, 1};
  place.image = image;
  return give(place);
}

void EventJoiner::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wanted_.wait(lock, [this] { return stop_ || next_in_ != next_out_; });
    if (next_in_ == next_out_) return;
    Place& place = (*places_)[next_out_ % capacity];
    const std::span<const Event> events = place.events;
    const uint64_t value = place.value;
    lock.unlock();
    Status first;
    for (const Event& event : events) {
      const Status status = event.wait();
      if (first.ok()) first = status;
    }
    if (first.ok() && place.image.data != nullptr) first = verify(place.image);
    place.timeline.signal(value, first);
    lock.lock();
    ++next_out_;
    free_.notify_one();
  }
}

}  // namespace sluice::tier
