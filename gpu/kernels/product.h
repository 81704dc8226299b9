// What all products share.
#pragma once

#include "core/kernel.h"
#include "gpu/kernels/intrinsics.h"

namespace sluice::gpu {

SLUICE_DEVICE uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

// What becomes of a sum.
SLUICE_DEVICE void store_product(const MatmulCall& call, uint32_t token, uint32_t row, float value) {
  float* out = call.out + uint64_t{token} * call.out_stride + row;
  if (call.bias != nullptr) value += call.bias[row];
  *out = call.accumulate ? *out + value : value;
}

}  // namespace sluice::gpu
