#include "gpu/probe.h"

#include <cuda_runtime.h>
#include <fmt/format.h>

#include "core/bytes.h"
#include "gpu/driver.h"

namespace sluice::gpu {
namespace {

// What the kernels need: asynchronous copies to shared memory and bf16 tensor cores.
constexpr int least_major = 8;

std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

std::string cuda_text(cudaError_t code) {
  (void)cudaGetLastError();
  return fmt::format("{} ({})", cudaGetErrorString(code), cudaGetErrorName(code));
}

// Why nothing of CUDA works here; empty if the driver is there and new enough. Drivers run programs of
// their own major version and older ones.
std::string driver_trouble() {
  int driver = 0, runtime = 0;
  const cudaError_t asked = cudaDriverGetVersion(&driver);
  if (asked != cudaSuccess) return "the NVIDIA driver does not answer: " + cuda_text(asked);
  if (driver == 0) return "no NVIDIA driver is installed";
  if (cudaRuntimeGetVersion(&runtime) == cudaSuccess && driver / 1000 < runtime / 1000)
    return fmt::format("the NVIDIA driver is too old: it knows CUDA {}, this build needs {}; update the driver",
                       version_text(driver), version_text(runtime / 1000 * 1000));
  return {};
}

std::string count_trouble(cudaError_t code) {
  if (code == cudaErrorNoDevice)
    return "no NVIDIA GPU is visible (an NVIDIA driver is installed; CUDA_VISIBLE_DEVICES may hide GPUs)";
  if (code == cudaErrorInsufficientDriver) return "the NVIDIA driver is too old for this build; update the driver";
  return "CUDA does not start: " + cuda_text(code);
}

DeviceFacts facts(int index, const cudaDeviceProp& p) {
  DeviceFacts f;
  f.index = index;
  f.name = p.name;
  f.memory_bytes = p.totalGlobalMem;
  f.n_sms = static_cast<uint32_t>(p.multiProcessorCount);
  f.major = p.major;
  f.minor = p.minor;
  f.pci_bus_id = fmt::format("{:04x}:{:02x}:{:02x}.0", p.pciDomainID, p.pciBusID, p.pciDeviceID);
  return f;
}

// The first reason for which a device is passed over is kept.
void list_devices(int n, Probe& result) {
  std::string why;
  for (int i = 0; i < n; ++i) {
    cudaDeviceProp properties{};
    const cudaError_t asked = cudaGetDeviceProperties(&properties, i);
    if (asked != cudaSuccess) {
      if (why.empty()) why = fmt::format("GPU {} does not answer: {}", i, cuda_text(asked));
    } else if (properties.major < least_major) {
      if (why.empty())
        why = fmt::format("{} has compute capability {}.{}; this build needs {}.0", properties.name, properties.major,
                          properties.minor, least_major);
    } else {
      result.devices.push_back(facts(i, properties));
    }
  }
  result.available = !result.devices.empty();
  if (!result.available) result.reason = why;
}

}  // namespace

std::string DeviceFacts::describe() const {
  return fmt::format("{}: {}, {}, {} SMs, compute capability {}.{}, PCI {}", index, name, format_size(memory_bytes),
                     n_sms, major, minor, pci_bus_id);
}

Probe probe() {
  Probe result;
  result.built = true;
  load_kernels_early();
  result.reason = driver_trouble();
  if (!result.reason.empty()) return result;
  int n = 0;
  const cudaError_t counted = cudaGetDeviceCount(&n);
  if (counted != cudaSuccess || n == 0)
    result.reason = count_trouble(counted == cudaSuccess ? cudaErrorNoDevice : counted);
  else list_devices(n, result);
  return result;
}

}  // namespace sluice::gpu
