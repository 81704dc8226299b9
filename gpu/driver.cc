#include "gpu/driver.h"

#include <cstdlib>

#include "core/error.h"
#include "gpu/cuda_error.h"

namespace sluice::gpu {
namespace {

// The functions as CUDA 12.0 defined them; later drivers keep that form.
constexpr unsigned entry_version = 12000;

// Null if this driver does not have it.
template <class F>
Status find(const char* name, F& function) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  SLUICE_RETURN_IF_ERROR(to_status(
      cudaGetDriverEntryPointByVersion(name, &entry, entry_version, cudaEnableDefault, &found), "asking the driver"));
  function = found == cudaDriverEntryPointSuccess ? reinterpret_cast<F>(entry) : nullptr;
  return {};
}

}  // namespace

void load_kernels_early() { (void)::setenv("CUDA_MODULE_LOADING", "EAGER", 0); }

Result<Driver> Driver::load(int device) {
  Driver driver;
  decltype(&cuDeviceGetAttribute) attribute = nullptr;
  SLUICE_RETURN_IF_ERROR(find("cuDeviceGetAttribute", attribute));
  SLUICE_RETURN_IF_ERROR(find("cuStreamWaitValue64", driver.stream_wait_value));
  SLUICE_RETURN_IF_ERROR(find("cuStreamWriteValue64", driver.stream_write_value));
  if (attribute == nullptr || driver.stream_wait_value == nullptr || driver.stream_write_value == nullptr)
    return Driver{};
  int has = 0;
  SLUICE_RETURN_IF_ERROR(to_status(attribute(&has, CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS, device),
                                   "asking for stream memory operations"));
  if (has == 0) return Driver{};
  driver.stream_memory_operations = true;
  return driver;
}

}  // namespace sluice::gpu
