// The KernelContext of a device: what its kernels may use. Scratch memory is the caller's.
#pragma once

#include <cuda_runtime.h>

#include "core/memory.h"
#include "gpu/dense_product.h"
#include "gpu/kernels/kernels.h"

namespace sluice::gpu {

// `properties` are those of `device`, as CUDA counts them. Loads the library for products where there is one.
inline KernelContext kernel_context(int device, const cudaDeviceProp& properties) {
  KernelContext context;
  context.n_sms = static_cast<uint32_t>(properties.multiProcessorCount);
  context.transfers = properties.major >= 9;
  context.dense = dense_product(device);
  return context;
}

// Memory of the device, for the kernels of one stream alone: the scratch that they use, and at its end the counters, if
// it is not too small for these.
Status give_scratch(KernelContext& context, int device, const Memory& scratch);
// What give_scratch() wants so that kernels get so much scratch, and counters.
uint64_t with_counters(uint64_t scratch_bytes);

}  // namespace sluice::gpu
