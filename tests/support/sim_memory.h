// A memory tier that is not there: bounded memory that says the CPU may not touch it, and a CopyQueue on
// a thread of its own, with modelled time and injected faults.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "core/memory.h"
#include "core/queue.h"

namespace sluice::testing {

// Plain memory underneath, so that tests and simulated kernels can look at it.
class SimMemory : public Memory {
 public:
  explicit SimMemory(uint64_t capacity, bool host_accessible = false);
  std::byte* base() const override { return base_.get(); }
  uint64_t capacity() const override { return capacity_; }
  bool host_accessible() const override { return host_accessible_; }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> base_;
  const uint64_t capacity_;
  const bool host_accessible_;
};

// Contract: core/queue.h. The thread runs one command after the other.
class SimCopyQueue : public CopyQueue {
 public:
  struct Options {
    double bytes_per_s = 0;  // 0: as fast as memcpy
    std::chrono::nanoseconds latency{0};
    size_t ring = 256;  // commands that wait; more make the caller wait
  };
  SimCopyQueue() : SimCopyQueue(Options()) {}
  explicit SimCopyQueue(const Options& options);
  ~SimCopyQueue() override;

  void wait(const Event& event) override;
  void copy(std::byte* to, const std::byte* from, uint64_t bytes) override;
  Event signal() override;
  void reset() override;

  // The n-th copy from now on fails (1: the next); with `repeat` every n-th.
  void fail_copy(uint64_t n, bool repeat = false);
  uint64_t copies() const { return copies_; }
  uint64_t bytes_copied() const { return bytes_; }

 private:
  struct Command {
    enum class Kind : uint8_t { wait, copy, signal } kind;
    Event event;
    std::byte* to = nullptr;
    const std::byte* from = nullptr;
    uint64_t bytes = 0;
    uint64_t value = 0;
  };
  void push(const Command& command);
  void run();
  void execute(const Command& command);
  void do_copy(const Command& command);
  bool copy_faults();

  const Options options_;
  Timeline timeline_;
  uint64_t enqueued_ = 0;  // signals
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Command> commands_;
  bool running_ = false, stop_ = false;
  Status failure_;
  uint64_t fail_in_ = 0, fail_every_ = 0;
  std::atomic<uint64_t> copies_{0}, bytes_{0};
  std::thread thread_;
};

}  // namespace sluice::testing
