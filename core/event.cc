#include "core/event.h"

namespace sluice {

void Timeline::signal(uint64_t value, const Status& status) {
  if (!status.ok()) {
    std::lock_guard lock(failures_mutex_);
    const uint32_t n = n_failures_.load(std::memory_order_relaxed);
    const uint64_t first = value_.load(std::memory_order_relaxed) + 1;
    Failure& newest = failures_[(n + failures_.size() - 1) % failures_.size()];
    if (n > 0 && newest.last + 1 == first && newest.status.code() == status.code() &&
        newest.status.message() == status.message()) {
      newest.last = value;  // a failed queue fails everything behind: one failure, however long
    } else {
      failures_[n % failures_.size()] = {first, value, status};
      n_failures_.store(n + 1, std::memory_order_release);
    }
  }
  value_.store(value, std::memory_order_release);
  value_.notify_all();
}

void Timeline::wait(uint64_t value) const {
  for (int spin = 0; spin < 200; ++spin) {
    if (value_.load(std::memory_order_acquire) >= value) return;
    __builtin_ia32_pause();
  }
  for (uint64_t seen = value_.load(std::memory_order_acquire); seen < value;
       seen = value_.load(std::memory_order_acquire))
    value_.wait(seen, std::memory_order_acquire);
}

Status Timeline::status_of(uint64_t value) const {
  if (n_failures_.load(std::memory_order_acquire) == 0) return {};
  std::lock_guard lock(failures_mutex_);
  for (const Failure& f : failures_)
    if (!f.status.ok() && f.first <= value && value <= f.last) return f.status;
  return {};
}

}  // namespace sluice
