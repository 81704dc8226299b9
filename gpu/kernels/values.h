// Weights of any format as floats, 16 at a time.
#pragma once

#include "gpu/kernels/formats.h"

namespace sluice::gpu {

// Byte i of q, signed: as an unsigned byte behind 2^23 it is a float's low bits. Faster than a conversion.
SLUICE_DEVICE float byte_to_float(int32_t q, uint32_t i) {
  const uint32_t bits = (static_cast<uint32_t>(q) ^ 0x80808080u) >> (8 * i) & 255;
  return __builtin_bit_cast(float, 0x4b000000u | bits) - 8388736.0f;  // 2^23 + 128
}

// Values 16g..16g+15 of a row of `cols`, each rounded at most once; those beyond cols become 0.
template <class F>
SLUICE_DEVICE void load_values(F format, const std::byte* row, uint32_t g, uint32_t /*cols*/, float* values) {
  const Group group = load_group(format, row, g);
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 16; ++i) values[i] = fmaf(group.scale, byte_to_float(group.q[i / 4], i % 4), group.min);
}

SLUICE_DEVICE void load_values(F32, const std::byte* row, uint32_t g, uint32_t cols, float* values) {
  const std::byte* at = row + uint64_t{g} * 64;
  const uint32_t n = cols - 16 * g < 16 ? cols - 16 * g : 16;
  if (n == 16 && reinterpret_cast<uintptr_t>(at) % 16 == 0) {
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      const Vec16 v = load16(at + 16 * i);
      SLUICE_UNROLL
      for (uint32_t j = 0; j < 4; ++j) values[4 * i + j] = __builtin_bit_cast(float, v.words[j]);
    }
    return;
  }
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 16; ++i) values[i] = i < n ? __builtin_bit_cast(float, load_bytes4(at + 4 * i)) : 0.0f;
}

SLUICE_DEVICE float float_of(F16, uint32_t bits) { return half_bits_to_float(static_cast<uint16_t>(bits)); }
SLUICE_DEVICE float float_of(BF16, uint32_t bits) { return bf16_bits_to_float(static_cast<uint16_t>(bits)); }

template <class F>
SLUICE_DEVICE void load_16_bit_values(F format, const std::byte* row, uint32_t g, uint32_t cols, float* values) {
  const std::byte* at = row + uint64_t{g} * 32;
  const uint32_t n = cols - 16 * g < 16 ? cols - 16 * g : 16;
  if (n == 16) {
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 2; ++i) {
      const Vec16 v = load_words4(at + 16 * i);
      SLUICE_UNROLL
      for (uint32_t j = 0; j < 8; ++j) values[8 * i + j] = float_of(format, v.words[j / 2] >> (16 * (j % 2)) & 0xffff);
    }
    return;
  }
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 16; ++i)
    values[i] = i < n ? float_of(format, *reinterpret_cast<const uint16_t*>(at + 2 * i)) : 0.0f;
}
SLUICE_DEVICE void load_values(F16 format, const std::byte* row, uint32_t g, uint32_t cols, float* values) {
  load_16_bit_values(format, row, g, cols, values);
}
SLUICE_DEVICE void load_values(BF16 format, const std::byte* row, uint32_t g, uint32_t cols, float* values) {
  load_16_bit_values(format, row, g, cols, values);
}

}  // namespace sluice::gpu
