// launch_packed() of gpu/launch.h for CUDA.
#pragma once

#include "gpu/launch.h"

namespace sluice::gpu {

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
  const dim3 grid(shape.grid_x, shape.grid_y, shape.grid_z);
  const dim3 block(shape.block_x, shape.block_y, 1);
  const cudaError_t result =
      cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, pointers, shape.shared_bytes, stream);
  if (result != cudaSuccess) cudaGetLastError();
  return result;
}

}  // namespace sluice::gpu
