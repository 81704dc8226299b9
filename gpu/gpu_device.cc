#include "gpu/gpu_device.h"

#include <cuda_runtime.h>

#include "core/error.h"
#include "gpu/cuda_error.h"
#include "gpu/driver.h"

namespace sluice::gpu {

Result<std::unique_ptr<GpuDevice>> GpuDevice::create(const GpuOptions& options) {
  std::unique_ptr<GpuDevice> device(new GpuDevice(options));
  SLUICE_RETURN_IF_ERROR(device->start().with_context(device->name_));
  return device;
}

Status GpuDevice::start() {
  load_kernels_early();
  cudaDeviceProp properties{};
  SLUICE_RETURN_IF_ERROR(to_status(cudaGetDeviceProperties(&properties, options_.device), "asking for its properties"));
  model_ = properties.name;
  context_.n_sms = static_cast<uint32_t>(properties.multiProcessorCount);
  if (options_.scratch != nullptr) {
    context_.scratch = options_.scratch->base();
    context_.scratch_bytes = options_.scratch->capacity();
  }
  Completions::Options completions;
  completions.device = options_.device;
  completions.stream_memory_operations = options_.stream_memory_operations;
  SLUICE_ASSIGN_OR_RETURN(completions_, Completions::create(completions));
  SLUICE_ASSIGN_OR_RETURN(queue_, GpuQueue::create(*completions_, context_));
  SLUICE_ASSIGN_OR_RETURN(to_device_, GpuCopyQueue::create(*completions_));
  SLUICE_ASSIGN_OR_RETURN(to_host_, GpuCopyQueue::create(*completions_));
  return {};
}

std::string GpuDevice::describe() const { return fmt::format("{}, {} SMs", model_, context_.n_sms); }

}  // namespace sluice::gpu
