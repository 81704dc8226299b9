// What all products share.
#pragma once

#include "core/kernel.h"
#include "gpu/kernels/intrinsics.h"

namespace sluice::gpu {

SLUICE_DEVICE uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

// Where the sums of a product go, and what becomes of them.
struct ProductOut {
  float* out;
  const float* bias;
  uint32_t stride;
  bool accumulate;
};
SLUICE_DEVICE void store_product(const ProductOut& to, uint32_t token, uint32_t row, float value) {
  float* out = to.out + uint64_t{token} * to.stride + row;
  if (to.bias != nullptr) value += to.bias[row];
  *out = to.accumulate ? *out + value : value;
}
SLUICE_DEVICE void store_product(const MatmulCall& call, uint32_t token, uint32_t row, float value) {
  store_product(ProductOut{call.out, call.bias, call.out_stride, call.accumulate}, token, row, value);
}

}  // namespace sluice::gpu
