// Putting a kernel on a stream of the stand-in.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace standin {

struct LaunchDims {
  uint32_t grid_x, grid_y, grid_z, block_x, block_y, shared_bytes;
  bool early;
};

// `call(arguments)` runs one thread of the kernel; the `bytes` at `arguments` are copied, once. `name` lives forever.
cudaError_t launch(cudaStream_t stream, const char* name, const LaunchDims& dims, void (*call)(const void*),
                   const void* arguments, size_t bytes);

}  // namespace standin
