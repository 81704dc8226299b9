// The rotation of one pair of a head.
#pragma once

#include "core/kernel.h"
#include "gpu/kernels/intrinsics.h"

namespace sluice::gpu {

// Where the two values of pair i are, and what they become.
struct RotatedPair {
  uint32_t first, second;
  float a, b;
};

// x: the head; table: of its token.
SLUICE_DEVICE RotatedPair rotated_pair(const RopeCall& call, const float* x, const float* table, uint32_t i) {
  const uint32_t half = call.n_rot / 2, first = call.pairs ? 2 * i : i, second = first + (call.pairs ? 1 : half);
  const float a = x[first], b = x[second], cosine = table[i], sine = table[half + i];
  return {first, second, fmaf(a, cosine, -(b * sine)), fmaf(b, cosine, a * sine)};
}

}  // namespace sluice::gpu
