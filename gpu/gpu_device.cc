#include "gpu/gpu_device.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "gpu/cuda_error.h"
#include "gpu/driver.h"
#include "gpu/kernel_context.h"

namespace sluice::gpu {
namespace {

// Lanes outlive every trace.
struct Lanes {
  std::string compute, to_device, to_host;
};
const Lanes& lanes_of(int device) {
  static const std::vector<Lanes> all = [] {
    std::vector<Lanes> lanes;
    for (int i = 0; i < 64; ++i) {
      const std::string name = "gpu " + std::to_string(i);
      lanes.push_back({name, name + " h2d", name + " d2h"});
    }
    return lanes;
  }();
  return all[std::min(static_cast<size_t>(device), all.size() - 1)];
}

}  // namespace

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
  context_ = kernel_context(options_.device, properties);
  if (options_.scratch != nullptr) {
    context_.scratch = options_.scratch->base();
    context_.scratch_bytes = options_.scratch->capacity();
  }
  Completions::Options completions;
  completions.device = options_.device;
  completions.stream_memory_operations = options_.stream_memory_operations;
  completions.trace = options_.trace;
  const Lanes& lanes = lanes_of(options_.device);
  SLUICE_ASSIGN_OR_RETURN(completions_, Completions::create(completions));
  // Those that are busy come first: they get streams beside them (gpu/completions.h).
  SLUICE_ASSIGN_OR_RETURN(queue_, GpuQueue::create(*completions_, context_, lanes.compute.c_str()));
  SLUICE_ASSIGN_OR_RETURN(to_device_, GpuCopyQueue::create(*completions_, lanes.to_device.c_str()));
  SLUICE_ASSIGN_OR_RETURN(to_host_, GpuCopyQueue::create(*completions_, lanes.to_host.c_str()));
  return {};
}

const char* GpuDevice::to_device_lane() const { return lanes_of(options_.device).to_device.c_str(); }

std::string GpuDevice::describe() const { return fmt::format("{}, {} SMs", model_, context_.n_sms); }

}  // namespace sluice::gpu
