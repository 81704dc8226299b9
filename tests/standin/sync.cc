#include "tests/standin/sync.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace standin {
namespace {

void futex_wait(uint32_t* word, uint32_t value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}
void futex_wake(uint32_t* word, int n) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, nullptr, nullptr, 0); }

constexpr uint64_t second = 1'000'000'000;

}  // namespace

void Lock::lock() {
  uint32_t free = 0;
  if (__atomic_compare_exchange_n(&state_, &free, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) return;
  while (__atomic_exchange_n(&state_, 2, __ATOMIC_ACQUIRE) != 0) futex_wait(&state_, 2);
}

void Lock::unlock() {
  if (__atomic_exchange_n(&state_, 0, __ATOMIC_RELEASE) == 2) futex_wake(&state_, 1);
}

void Wakeup::wait(Lock& lock) {
  const uint32_t generation = __atomic_load_n(&generation_, __ATOMIC_RELAXED);
  ++sleepers_;
  lock.unlock();
  futex_wait(&generation_, generation);
  lock.lock();
  --sleepers_;
}

void Wakeup::notify_all() {
  if (sleepers_ == 0) return;
  __atomic_add_fetch(&generation_, 1, __ATOMIC_RELEASE);
  futex_wake(&generation_, INT32_MAX);
}

uint64_t now_ns() {
  timespec now;
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * second + static_cast<uint64_t>(now.tv_nsec);
}

void sleep_until_ns(uint64_t time) {
  const timespec until = {static_cast<time_t>(time / second), static_cast<long>(time % second)};
  while (now_ns() < time) syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
}

}  // namespace standin
