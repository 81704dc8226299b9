// The KernelContext of a device: what its kernels may use. Scratch memory is the caller's to add.
#pragma once

#include <cuda_runtime.h>

#include "gpu/dense_product.h"
#include "gpu/kernels/kernels.h"

namespace sluice::gpu {

// `properties` are those of `device`, as CUDA counts them. Loads the library for products where there is one.
inline KernelContext kernel_context(int device, const cudaDeviceProp& properties) {
  KernelContext context;
  context.n_sms = static_cast<uint32_t>(properties.multiProcessorCount);
  context.sm_shared_bytes = static_cast<uint32_t>(properties.sharedMemPerMultiprocessor);
  context.transfers = properties.major >= 9;
  context.dense = dense_product(device);
  return context;
}

}  // namespace sluice::gpu
