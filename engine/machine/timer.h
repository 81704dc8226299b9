// KernelTimer: times kernel calls on a device, chained as a step chains them.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "cpu/cpu_device.h"
#include "cpu/host_memory.h"

namespace sluice::engine {

class KernelTimer {
 public:
  // Takes `weights` bytes for weights, all of which are harmless in every type, and `scratch` for what
  // else calls read and write.
  static Result<KernelTimer> create(cpu::CpuDevice& device, uint64_t weights, uint64_t scratch);

  cpu::CpuDevice& device() { return *device_; }
  std::byte* scratch() { return scratch_->base(); }
  uint64_t weights_bytes() const { return weights_->capacity(); }

  // A part of the weights of `bytes`, another one each time until all have been given: so that caches do
  // not hold it.
  const std::byte* next_weights(uint64_t bytes) { return next_page(bytes); }
  std::byte* next_page(uint64_t bytes);

  // Seconds of what one launch(queue) enqueues, many of them one behind the other: the second least of
  // five runs of some milliseconds.
  Result<double> time(const std::function<void(Queue&)>& launch);

  // Seconds of n launches.
  Result<double> time_run(uint32_t n, const std::function<void(Queue&)>& launch);

  // A product with weights from memory, other ones with each launch; of a prompt if it has as many tokens.
  Result<std::function<void(Queue&)>> product(DType dtype, Compute compute, uint32_t rows, uint32_t cols,
                                              uint32_t tokens);

  // Seconds of one.
  Result<double> time_product(DType dtype, Compute compute, uint32_t rows, uint32_t cols, uint32_t tokens);

 private:
  explicit KernelTimer(cpu::CpuDevice& device) : device_(&device) {}
  cpu::CpuDevice* device_;
  std::unique_ptr<cpu::HostMemory> weights_, scratch_;
  uint64_t at_ = 0;
};

// Bytes of scratch that time_product() needs for rows up to `rows` and `cols`.
uint64_t product_scratch(uint32_t rows, uint32_t cols, uint32_t tokens);

}  // namespace sluice::engine
