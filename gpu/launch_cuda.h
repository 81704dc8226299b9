// launch_packed() of gpu/launch.h for CUDA.
#pragma once

#include "gpu/launch.h"

namespace sluice::gpu {

// Whether the calling thread's device lets kernels begin early.
inline bool kernels_begin_early() {
  static thread_local int known = -1, major = 0;
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return false;
  if (device == known) return major >= 9;
  if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess) return false;
  known = device;
  return major >= 9;
}

template <class... P>
cudaError_t launch_packed(cudaStream_t stream, const char* /*name*/, const LaunchShape& shape, void (*kernel)(P...),
                          std::tuple<P...>& arguments) {
  if (shape.shared_bytes > plain_shared_bytes) {
    const cudaError_t allowed =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes));
    if (allowed != cudaSuccess) {
      cudaGetLastError();
      return allowed;
    }
  }
  void* pointers[sizeof...(P) + 1] = {};
  size_t n = 0;
  std::apply(
      [&](auto&... argument) { ((pointers[n++] = const_cast<void*>(static_cast<const void*>(&argument))), ...); },
      arguments);
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(shape.grid_x, shape.grid_y, shape.grid_z);
  config.blockDim = dim3(shape.block_x, shape.block_y, 1);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = shape.early && kernels_begin_early() ? 1 : 0;
  const cudaError_t result = cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(kernel), pointers);
  if (result != cudaSuccess) cudaGetLastError();
  return result;
}

}  // namespace sluice::gpu
