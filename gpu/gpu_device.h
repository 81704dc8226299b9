// GpuDevice: one GPU as a device that computes in its own memory tier.
//
// It has a compute queue and two copy queues, so that copies in both directions run beside kernels. Its memory
// tier is a GpuMemory that the caller makes, carves and charges; the scratch that kernels need comes from
// there too.
// Threads: as Device; each queue by one thread at a time.
#pragma once

#include <memory>
#include <string>

#include "core/device.h"
#include "core/memory.h"
#include "gpu/gpu_copy_queue.h"
#include "gpu/gpu_queue.h"

namespace sluice::gpu {

struct GpuOptions {
  int device = 0;                        // as CUDA counts them
  TierId memory_tier{1};                 // that the caller gave the device's memory
  Memory* scratch = nullptr;             // of the device, for kernels alone; outlives the GpuDevice. Null: none
  bool stream_memory_operations = true;  // false: do without them even where the device has them
  // Gets spans on the lanes "gpu 0", "gpu 0 h2d" and "gpu 0 d2h" (by the number of the device); outlives it.
  Trace* trace = nullptr;
};

class GpuDevice : public Device {
 public:
  // unavailable if the device does not answer.
  static Result<std::unique_ptr<GpuDevice>> create(const GpuOptions& options);

  std::string name() const override { return name_; }
  TierId memory_tier() const override { return options_.memory_tier; }
  Queue& queue() override { return *queue_; }
  ActFormat act_format(DType weights, Compute compute, bool) const override {
    return gpu::act_format(weights, compute);
  }
  uint64_t act_row_bytes(ActFormat format, uint32_t cols) const override { return gpu::act_row_bytes(format, cols); }

  GpuQueue& compute() { return *queue_; }
  GpuCopyQueue& to_device() { return *to_device_; }
  GpuCopyQueue& to_host() { return *to_host_; }
  Completions& completions() { return *completions_; }  // for further queues, which die before the device
  const char* to_device_lane() const;                   // of traces; lives as long as the process
  Status lost() const { return completions_->lost(); }  // why it no longer works; ok while it does
  std::string describe() const;                         // "NVIDIA H100, 114 SMs": for people

 private:
  explicit GpuDevice(const GpuOptions& options) : options_(options), name_("gpu " + std::to_string(options.device)) {}
  Status start();

  const GpuOptions options_;
  const std::string name_;
  std::string model_;
  KernelContext context_{};
  std::unique_ptr<Completions> completions_;  // dies after the queues
  std::unique_ptr<GpuQueue> queue_;
  std::unique_ptr<GpuCopyQueue> to_device_, to_host_;
};

}  // namespace sluice::gpu
