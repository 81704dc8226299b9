// Where things lie in blocks of ActFormat::wide8 (kernels.h has the layout), for whoever multiplies them.
#pragma once

#include "cpu/kernels/kernels.h"

namespace sluice::cpu {

inline constexpr uint32_t piece_rows = 16, piece_bytes = piece_rows * wide_step, step_bytes = act_group * wide_step;

// Columns of the block that begins at `col`.
[[gnu::always_inline]] inline uint32_t block_cols(uint32_t cols, uint32_t col) {
  return cols - col < wide_block ? cols - col : wide_block;
}
[[gnu::always_inline]] inline uint32_t steps_of(uint32_t block_cols) {
  return (block_cols + wide_step - 1) / wide_step;
}
[[gnu::always_inline]] inline const float* scales_of(const std::byte* block, uint32_t steps) {
  return reinterpret_cast<const float*>(block + uint64_t{steps} * step_bytes);
}
[[gnu::always_inline]] inline float* scales_of(std::byte* block, uint32_t steps) {
  return reinterpret_cast<float*>(block + uint64_t{steps} * step_bytes);
}

}  // namespace sluice::cpu
