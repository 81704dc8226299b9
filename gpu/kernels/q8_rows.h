// Layout of q8 activations on the GPU. A row of `cols` values (a multiple of 32) is three parts, each padded
// to 64 bytes:
//   cols int8 in -127..127;
//   for each block of 32 a Q8Scale: value = scale * int8, and the sum of the block's int8;
//   cols bf16, the values rounded by themselves, for the tensor cores of matmul_tile.cu.
// The bf16 part costs two bytes for each value and makes prompts independent of the 8-bit rounding.
#pragma once

#include <cstdint>

namespace sluice::gpu {

struct alignas(8) Q8Scale {
  float scale;
  float sum;  // an integer
};

// Where the parts of a row of `cols` are; made on the host and handed to kernels.
struct Q8Layout {
  uint64_t scales, bf16;  // from the row's begin
  uint64_t row_bytes;     // from one row to the next
};

inline Q8Layout q8_layout(uint32_t cols) {
  const auto padded = [](uint64_t bytes) { return (bytes + 63) / 64 * 64; };
  const uint64_t scales = padded(cols), bf16 = scales + padded(uint64_t{cols} / 32 * sizeof(Q8Scale));
  return {scales, bf16, bf16 + padded(uint64_t{cols} * 2)};
}

}  // namespace sluice::gpu
