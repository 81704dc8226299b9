// Products by activation format; matmul() chooses. Both divide the rows of the tile among the shares.
#pragma once

#include "cpu/kernels/kernels.h"

namespace sluice::cpu::SLUICE_ISA {

// Weights Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K or Q6_K; cols a multiple of their block.
void matmul_q8(const MatmulCall& call, Share share);

// Weights of any type but I32.
void matmul_f32(const MatmulCall& call, Share share);

// (out +) (value + bias), in this order.
[[gnu::always_inline]] inline void store_output(const MatmulCall& call, uint32_t token, uint32_t row, float value) {
  float* out = call.out + uint64_t{token} * call.out_stride + row;
  if (call.bias != nullptr) value += call.bias[row];
  *out = call.accumulate ? *out + value : value;
}

}  // namespace sluice::cpu::SLUICE_ISA
