// A device that is not there: computes as the CPU does, but has a memory tier of its own.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/device.h"
#include "cpu/cpu_device.h"

namespace sluice::testing {

// The tier's memory has to be reachable by the CPU's kernels, as SimMemory is.
class SimDevice : public Device {
 public:
  SimDevice(std::unique_ptr<cpu::CpuDevice> cpu, TierId tier)
      : cpu_(std::move(cpu)), queue_(cpu_->queue()), tier_(tier) {}
  std::string name() const override { return "sim"; }
  TierId memory_tier() const override { return tier_; }
  Queue& queue() override { return queue_; }
  ActFormat act_format(DType weights, Compute compute, bool prompt) const override {
    return cpu_->act_format(weights, compute, prompt);
  }
  uint64_t act_row_bytes(ActFormat format, uint32_t cols) const override { return cpu_->act_row_bytes(format, cols); }

  // Products that it computed.
  uint64_t products() const;
  // Told of every call, on the thread that enqueues.
  void watch(std::function<void(const KernelCall&)> watcher) { queue_.watcher = std::move(watcher); }

 private:
  struct WatchedQueue : Queue {
    explicit WatchedQueue(Queue& q) : queue(q) {}
    void wait(const Event& event) override { queue.wait(event); }
    void launch(const KernelCall& call) override {
      if (watcher) watcher(call);
      queue.launch(call);
    }
    Event signal() override { return queue.signal(); }
    void reset() override { queue.reset(); }
    Queue& queue;
    std::function<void(const KernelCall&)> watcher;
  };
  std::unique_ptr<cpu::CpuDevice> cpu_;
  WatchedQueue queue_;
  const TierId tier_;
};

}  // namespace sluice::testing
