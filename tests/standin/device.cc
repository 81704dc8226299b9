// Device queries, versions, entry points and error texts.
#include <cuda.h>

#include <cstring>

#include "tests/standin/runtime.h"
#include "tests/standin/stream.h"

namespace {

using standin::api;
using standin::Call;
using standin::Runtime;
using standin::runtime;

struct ErrorName {
  cudaError_t error;
  const char* name;
  const char* text;
};
constexpr ErrorName error_names[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidHostPointer, "cudaErrorInvalidHostPointer", "invalid host pointer"},
    {cudaErrorInvalidDevicePointer, "cudaErrorInvalidDevicePointer", "invalid device pointer"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorDevicesUnavailable, "cudaErrorDevicesUnavailable", "CUDA-capable device(s) is/are busy or unavailable"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorECCUncorrectable, "cudaErrorECCUncorrectable", "uncorrectable ECC error encountered"},
    {cudaErrorOperatingSystem, "cudaErrorOperatingSystem", "OS call failed or operation not supported on this OS"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorIllegalState, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {cudaErrorSymbolNotFound, "cudaErrorSymbolNotFound", "named symbol not found"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {cudaErrorLaunchTimeout, "cudaErrorLaunchTimeout", "the launch timed out and was terminated"},
    {cudaErrorHostMemoryAlreadyRegistered, "cudaErrorHostMemoryAlreadyRegistered",
     "part or all of the requested memory range is already mapped"},
    {cudaErrorHostMemoryNotRegistered, "cudaErrorHostMemoryNotRegistered",
     "pointer does not correspond to a registered memory region"},
    {cudaErrorMisalignedAddress, "cudaErrorMisalignedAddress", "misaligned address"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotPermitted, "cudaErrorNotPermitted", "operation not permitted"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
     "capture was not ended in the same stream as it began"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
     "dependency created on uncaptured work in another stream"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent",
     "operation not permitted on an event last recorded in a capturing stream"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

const ErrorName* find(cudaError_t error) {
  for (const ErrorName& known : error_names) {
    if (known.error == error) return &known;
  }
  return nullptr;
}

cudaError_t attribute_value(const Runtime& state, cudaDeviceAttr attribute, int* value) {
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 * 1024; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMultiProcessorCount: *value = state.options.multiprocessors; break;
    case cudaDevAttrIntegrated: *value = 0; break;
    case cudaDevAttrComputeCapabilityMajor: *value = state.options.compute_major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = state.options.compute_minor; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = standin::max_shared_bytes + 1024; break;
    case cudaDevAttrPageableMemoryAccess: *value = 0; break;
    case cudaDevAttrCanUseHostPointerForRegisteredMem: *value = state.options.host_pointers ? 1 : 0; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = standin::max_shared_bytes; break;
    case cudaDevAttrHostRegisterSupported: *value = 1; break;
    default: return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

CUresult device_attribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  standin::Quiet quiet;
  standin::Guard guard(runtime().lock);
  const Runtime& state = runtime();
  if (device < 0 || device >= state.options.devices) return CUDA_ERROR_INVALID_DEVICE;
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_CAN_FLUSH_REMOTE_WRITES:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR: *value = 0; return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS:
      *value = state.options.memory_operations ? 1 : 0;
      return CUDA_SUCCESS;
    default: return static_cast<CUresult>(attribute_value(state, static_cast<cudaDeviceAttr>(attribute), value));
  }
}

}  // namespace

const char* cudaGetErrorName(cudaError_t error) {
  const ErrorName* known = find(error);
  return known == nullptr ? "unrecognized error code" : known->name;
}
const char* cudaGetErrorString(cudaError_t error) {
  const ErrorName* known = find(error);
  return known == nullptr ? "unrecognized error code" : known->text;
}

cudaError_t cudaDriverGetVersion(int* version) {
  standin::Quiet quiet;
  standin::Guard guard(runtime().lock);
  *version = runtime().options.driver_version;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned cuda_version,
                                             unsigned long long /*flags*/, cudaDriverEntryPointQueryResult* result) {
  *function = nullptr;
  return api(Call::get_driver_entry_point, [&](Runtime& state) {
    if (cuda_version > static_cast<unsigned>(state.options.driver_version)) return cudaErrorInvalidValue;
    if (strcmp(symbol, "cuStreamWaitValue64") == 0) *function = reinterpret_cast<void*>(standin::wait_value);
    if (strcmp(symbol, "cuStreamWriteValue64") == 0) *function = reinterpret_cast<void*>(standin::write_value);
    if (strcmp(symbol, "cuDeviceGetAttribute") == 0) *function = reinterpret_cast<void*>(device_attribute);
    if (result != nullptr) {
      *result = *function == nullptr ? cudaDriverEntryPointSymbolNotFound : cudaDriverEntryPointSuccess;
    }
    return cudaSuccess;
  });
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  return api(Call::get_device_count, [&](Runtime& state) {
    *count = state.options.devices;
    return cudaSuccess;
  });
}

cudaError_t cudaSetDevice(int device) {
  return api(Call::set_device, [&](Runtime& state) {
    return device >= 0 && device < state.options.devices ? cudaSuccess : cudaErrorInvalidDevice;
  });
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return api(Call::device_get_attribute, [&](Runtime& state) {
    if (device < 0 || device >= state.options.devices) return cudaErrorInvalidDevice;
    return attribute_value(state, attribute, value);
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return api(Call::get_device_properties, [&](Runtime& state) {
    if (device < 0 || device >= state.options.devices) return cudaErrorInvalidDevice;
    *properties = {};
    strcpy(properties->name, "Stand-in GPU");
    properties->totalGlobalMem = state.options.device_bytes;
    properties->sharedMemPerBlock = 48 * 1024;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->major = state.options.compute_major;
    properties->minor = state.options.compute_minor;
    properties->multiProcessorCount = state.options.multiprocessors;
    properties->pciBusID = 1 + device;
    properties->asyncEngineCount = 2;
    properties->unifiedAddressing = 1;
    properties->memoryBusWidth = 256;
    properties->l2CacheSize = 32 << 20;
    properties->sharedMemPerBlockOptin = standin::max_shared_bytes;
    properties->sharedMemPerMultiprocessor = standin::max_shared_bytes + 1024;
    return cudaSuccess;
  });
}
