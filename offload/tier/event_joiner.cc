#include "offload/tier/event_joiner.h"

namespace sluice::tier {

EventJoiner::~EventJoiner() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wanted_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Event EventJoiner::join(std::span<const Event> events) {
  std::unique_lock lock(mutex_);
  if (!thread_.joinable()) {
    places_ = std::make_unique<std::array<Place, capacity>>();
    thread_ = std::thread([this] { run(); });
  }
  free_.wait(lock, [this] { return next_in_ - next_out_ < capacity; });
  Place& place = (*places_)[next_in_++ % capacity];
  place.events = events;
  const Event joined(place.timeline, ++place.value);
  wanted_.notify_one();
  return joined;
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
    place.timeline.signal(value, first);
    lock.lock();
    ++next_out_;
    free_.notify_one();
  }
}

}  // namespace sluice::tier
