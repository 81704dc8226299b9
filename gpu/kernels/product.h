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
SLUICE_DEVICE float* place_of(const ProductOut& to, uint32_t token, uint32_t row) {
  return to.out + uint64_t{token} * to.stride + row;
}
SLUICE_DEVICE void store_product(const ProductOut& to, uint32_t token, uint32_t row, float value) {
  float* out = place_of(to, token, row);
  if (to.bias != nullptr) value += to.bias[row];
  *out = to.accumulate ? *out + value : value;
}
// The same with what is there and the bias asked for before: what comes of a sum is known a look-up earlier.
struct ProductBefore {
  float out, bias;
};
SLUICE_DEVICE ProductBefore before_product(const ProductOut& to, uint32_t token, uint32_t row) {
  return {to.accumulate ? *place_of(to, token, row) : 0.0f, to.bias != nullptr ? to.bias[row] : 0.0f};
}
SLUICE_DEVICE void store_product(const ProductOut& to, const ProductBefore& before, uint32_t token, uint32_t row,
                                 float value) {
  if (to.bias != nullptr) value += before.bias;
  *place_of(to, token, row) = to.accumulate ? before.out + value : value;
}
SLUICE_DEVICE void store_product(const MatmulCall& call, uint32_t token, uint32_t row, float value) {
  store_product(ProductOut{call.out, call.bias, call.out_stride, call.accumulate}, token, row, value);
}

}  // namespace sluice::gpu
