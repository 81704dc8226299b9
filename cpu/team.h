// Team: threads that run one job together, again and again, with barriers well below a microsecond.
#pragma once

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "cpu/kernels/kernels.h"
#include "sluice/status.h"

namespace sluice::cpu {

// A counter that one thread raises and others wait for: spinning first, then asleep in the kernel. What
// was written before raise() is seen after wait(). It may wrap; values compare by their distance.
class Gate {
 public:
  uint32_t value() const { return value_.load(std::memory_order_acquire); }
  bool reached(uint32_t value) const { return static_cast<int32_t>(this->value() - value) >= 0; }

  // By one thread at a time.
  void raise(uint32_t value);

  // Returns once the counter is at `value` or beyond; sleeps after about spin_ns.
  void wait(uint32_t value, uint32_t spin_ns) const;

 private:
  bool spin(uint32_t value, uint32_t spin_ns) const;

  std::atomic<uint32_t> value_{0};
  mutable std::atomic<uint32_t> sleepers_{0};
};

// Memory that will be read soon.
struct Ahead {
  const std::byte* from = nullptr;
  uint64_t bytes = 0;
};

struct TeamOptions {
  uint32_t n_threads = 1;  // the leader among them
  // Where thread i is pinned, by the number of the hardware thread; empty: not pinned. A system that
  // refuses is not an error.
  std::vector<uint32_t> cores;
  // How long a thread spins before it sleeps. Make it 0 where there are more threads than cores.
  uint32_t spin_ns = 100'000;
};

// The leader is whichever thread calls run(); the other n_threads - 1 belong to the team.
// Threads: bind_leader() and run() by one thread at a time.
class Team {
 public:
  using Job = void (*)(const void* context, Share share);
  using Foresight = Ahead (*)(const void* context, Share share);

  // unavailable if the system grants no more threads.
  static Result<std::unique_ptr<Team>> create(TeamOptions options);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  uint32_t size() const { return options_.n_threads; }
  uint32_t spin_ns() const { return options_.spin_ns; }

  // Pins and names the calling thread as thread 0.
  void bind_leader() { bind(0); }

  // Calls job(context, {i, size()}) on every thread, on the caller as i = 0, and returns when all are
  // done. What the job wrote is seen by the caller, and by all jobs after it. A thread that is done
  // fetches what foresight(context, its share) names into its cache while it has nothing else to do.
  void run(Job job, const void* context, Foresight foresight = nullptr);

 private:
  explicit Team(TeamOptions options);
  Status start_threads();
  void work(uint32_t index);
  void bind(uint32_t index) const;
  void fetch_until(const Gate& gate, uint32_t value, Ahead ahead) const;

  // What the leader writes and the others read lies together, apart from where each tells its end.
  struct alignas(128) Start {
    Gate gate;
    Job job = nullptr;
    const void* context = nullptr;
    Foresight foresight = nullptr;
    bool stop = false;
  };
  struct alignas(128) End {
    Gate gate;
  };

  const TeamOptions options_;
  uint32_t round_ = 0;
  Start start_;
  std::vector<End> ends_;
  std::vector<std::thread> threads_;
};

}  // namespace sluice::cpu
