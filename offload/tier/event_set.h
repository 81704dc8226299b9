// EventSet: the Events after which a copy's memory may be reused, at most four.
//
// Of several Events of one Timeline only the latest is kept, and those that have signalled are forgotten
// when room is wanted; so four are enough for four queues that use one copy at the same time. A fifth
// does not fit: add() refuses, and the caller waits for the first() and tries again.
// Threads: none of its own.
#pragma once

#include <array>
#include <cstddef>

#include "core/event.h"

namespace sluice::tier {

class EventSet {
 public:
  static constexpr size_t capacity = 4;

  // False if the set is full of Events of other Timelines that have not signalled.
  bool add(const Event& event) {
    if (event.done()) return true;
    for (size_t i = 0; i < size_; ++i) {
      if (events_[i].timeline() != event.timeline()) continue;
      if (events_[i].value() < event.value()) events_[i] = event;
      return true;
    }
    if (size_ == capacity) prune();
    if (size_ == capacity) return false;
    events_[size_++] = event;
    return true;
  }

  // Forgets what has signalled, however it ended.
  void prune() {
    size_t kept = 0;
    for (size_t i = 0; i < size_; ++i)
      if (!events_[i].done()) events_[kept++] = events_[i];
    size_ = kept;
  }

  bool empty() const { return size_ == 0; }
  const Event& first() const { return events_[0]; }
  const Event* begin() const { return events_.data(); }
  const Event* end() const { return events_.data() + size_; }

 private:
  std::array<Event, capacity> events_;
  size_t size_ = 0;
};

}  // namespace sluice::tier
