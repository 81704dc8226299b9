#include "cpu/team.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <system_error>

#include "core/error.h"
#include "core/trace.h"

namespace sluice::cpu {
namespace {

constexpr uint64_t polite_ns = 20'000;  // a spinning thread offers its core to others after this

void futex_wait(const std::atomic<uint32_t>& word, uint32_t seen) {
  ::syscall(SYS_futex, reinterpret_cast<const uint32_t*>(&word), FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
}

void futex_wake_all(const std::atomic<uint32_t>& word) {
  ::syscall(SYS_futex, reinterpret_cast<const uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace

// Both sides are sequentially consistent: either raise() sees the sleeper, or the sleeper the new value.
void Gate::raise(uint32_t value) {
  value_.store(value, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) != 0) futex_wake_all(value_);
}

bool Gate::spin(uint32_t value, uint32_t spin_ns) const {
  if (reached(value)) return true;
  if (spin_ns == 0) return false;
  const uint64_t start = now_ns();
  for (;;) {
    for (int i = 0; i < 32; ++i) {
      if (reached(value)) return true;
      __builtin_ia32_pause();
    }
    const uint64_t waited = now_ns() - start;
    if (waited >= spin_ns) return reached(value);
    // The thread that would raise the gate may be waiting for this core.
    if (waited >= polite_ns) ::sched_yield();
  }
}

void Gate::wait(uint32_t value, uint32_t spin_ns) const {
  if (spin(value, spin_ns)) return;
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  for (;;) {
    const uint32_t seen = value_.load(std::memory_order_seq_cst);
    if (static_cast<int32_t>(seen - value) >= 0) break;
    futex_wait(value_, seen);
  }
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

Team::Team(TeamOptions options) : options_(std::move(options)), ends_(options_.n_threads) {}

Result<std::unique_ptr<Team>> Team::create(TeamOptions options) {
  if (options.n_threads == 0) return error(Code::invalid_argument, "a team needs at least one thread");
  std::unique_ptr<Team> team(new Team(std::move(options)));
  SLUICE_RETURN_IF_ERROR(team->start_threads());
  return team;
}

Status Team::start_threads() {
  threads_.reserve(size() - 1);
  for (uint32_t i = 1; i < size(); ++i) try {
      threads_.emplace_back([this, i] { work(i); });
    } catch (const std::system_error& e) {
      return error(Code::unavailable, "cannot start compute thread {} of {}: {}; ask for fewer (--threads)", i + 1,
                   size(), e.what());
    }
  return {};
}

Team::~Team() {
  start_.stop = true;
  start_.gate.raise(++round_);
  for (std::thread& t : threads_) t.join();
}

void Team::run(Job job, const void* context, Foresight foresight) {
  start_.job = job;
  start_.context = context;
  start_.foresight = foresight;
  start_.gate.raise(++round_);
  job(context, {0, size()});
  // The leader has work to do as soon as the others are done.
  if (foresight != nullptr && size() > 1) fetch_until(ends_[1].gate, round_, foresight(context, {0, size()}));
  for (uint32_t i = 1; i < size(); ++i) ends_[i].gate.wait(round_, options_.spin_ns);
}

void Team::work(uint32_t index) {
  bind(index);
  for (uint32_t round = 1;; ++round) {
    start_.gate.wait(round, options_.spin_ns);
    if (start_.stop) return;
    start_.job(start_.context, {index, size()});
    const Ahead ahead = start_.foresight != nullptr ? start_.foresight(start_.context, {index, size()}) : Ahead{};
    ends_[index].gate.raise(round);
    fetch_until(start_.gate, round + 1, ahead);
  }
}

// Fetches line after line until the gate is at `value`.
void Team::fetch_until(const Gate& gate, uint32_t value, Ahead ahead) const {
  constexpr uint64_t line = 64, lines_at_once = 8;
  for (uint64_t i = 0; i < ahead.bytes && !gate.reached(value); i += line * lines_at_once)
    for (uint64_t j = 0; j < lines_at_once; ++j) __builtin_prefetch(ahead.from + i + j * line, 0, 2);
}

void Team::bind(uint32_t index) const {
  char name[16];
  std::snprintf(name, sizeof name, "sluice-cpu%u", index % 1000);
  ::pthread_setname_np(::pthread_self(), name);
  if (index >= options_.cores.size() || options_.cores[index] >= CPU_SETSIZE) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(options_.cores[index], &set);
  (void)::sched_setaffinity(0, sizeof set, &set);
}

}  // namespace sluice::cpu
