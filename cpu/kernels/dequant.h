// Weights to f32. Each value is rounded at most once, so all instruction sets give the same bits.
#pragma once

#include "cpu/kernels/kernels.h"

namespace sluice::cpu::SLUICE_ISA {

// Bytes of `elements` values; elements must be a multiple of the block.
uint64_t weight_bytes(DType type, uint64_t elements);

// out[0..n) from the blocks at `from`, any alignment. n is a multiple of the block; type is not I32.
void dequantize(DType type, const std::byte* from, uint32_t n, float* out);

// Of the eight sub-blocks of a Q4_K block: a weight is scale * nibble + min.
struct Q4KScales {
  float scale[8], min[8];
};
Q4KScales q4_k_scales(const std::byte* block);

}  // namespace sluice::cpu::SLUICE_ISA
