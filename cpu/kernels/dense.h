// Activations and weights packed in groups (cpu/kernels/kernels.h), by format; quantize() and pack_panel() choose.
#pragma once

#include "cpu/kernels/matmul.h"

namespace sluice::cpu::SLUICE_ISA {

// cols is a multiple of 32. Tokens of the last group that are not there become zeros.
void pack_bf16(const QuantizeCall& call, Share share);
void pack_wide8(const QuantizeCall& call, Share share);

void bf16_panel(const WeightPanel& panel);
void wide8_panel(const WeightPanel& panel);

// The rows that are read next, on their way to the second cache.
inline constexpr uint32_t rows_ahead = 4;
[[gnu::always_inline]] inline void fetch_row_ahead(const WeightPanel& panel, uint32_t row, uint64_t bytes) {
  if (row + rows_ahead >= panel.rows) return;
  const std::byte* from = panel.from + uint64_t{row + rows_ahead} * panel.row_bytes;
  for (uint64_t b = 0; b < bytes; b += 64) __builtin_prefetch(from + b, 0, 2);
}

}  // namespace sluice::cpu::SLUICE_ISA
