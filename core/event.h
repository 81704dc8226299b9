// Events: points in time that hosts and devices can wait on.
//
// A Timeline is a counter that only grows, owned by whoever produces work (a queue, an I/O slot). An
// Event is a Timeline and the value it must reach; it is a small copyable handle and must not outlive
// its Timeline. An Event always signals, on failure too: a failed value carries a Status, so that no
// wait hangs and no failure is lost. A default Event is done and ok.
//
// Threads: everything here may be called from any thread. signal() of one Timeline is called by one
// thread at a time, with growing values.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

#include "sluice/status.h"

namespace sluice {

class Timeline {
 public:
  Timeline() = default;
  Timeline(const Timeline&) = delete;
  Timeline& operator=(const Timeline&) = delete;

  uint64_t value() const { return value_.load(std::memory_order_acquire); }

  // Raises the counter to `value` and wakes all waiters. With a failed status every value above the
  // previous one, up to this one, counts as failed.
  void signal(uint64_t value, const Status& status = {});

  // Sleeps until the counter is at least `value`, after spinning for a few microseconds.
  void wait(uint64_t value) const;

  // What came of `value`, which must have been reached. The last 64 failures of a Timeline are
  // remembered in full; an older failure may be forgotten.
  Status status_of(uint64_t value) const;

 private:
  struct Failure {
    uint64_t first = 0, last = 0;
    Status status;
  };
  std::atomic<uint64_t> value_{0};
  std::atomic<uint32_t> n_failures_{0};
  mutable std::mutex failures_mutex_;
  std::array<Failure, 64> failures_;
};

class Event {
 public:
  Event() = default;
  Event(Timeline& timeline, uint64_t value) : timeline_(&timeline), value_(value) {}

  bool done() const { return timeline_ == nullptr || timeline_->value() >= value_; }

  // Sleeps until done, then tells how it ended.
  Status wait() const {
    if (timeline_ == nullptr) return {};
    timeline_->wait(value_);
    return timeline_->status_of(value_);
  }

  // ok while not yet done.
  Status status() const { return timeline_ == nullptr || !done() ? Status() : timeline_->status_of(value_); }

  // Of two Events of one Timeline the one with the larger value implies the other.
  const Timeline* timeline() const { return timeline_; }
  uint64_t value() const { return value_; }

  bool operator==(const Event&) const = default;

 private:
  Timeline* timeline_ = nullptr;
  uint64_t value_ = 0;
};

}  // namespace sluice
