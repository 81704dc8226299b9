// The formats of weights (core/dtype.h) as kernels read them.
//
// A row is taken in groups of 16 values. load_group gives a group's values in their order, for kernels that
// dequantize; the format's offset (8, 16, 32) is subtracted from the packed bytes, so that what is left is signed.
// Products of few tokens read the same formats in an order of their own (matvec_stage.h).
#pragma once

#include <cstddef>

#include "core/dtype.h"
#include "gpu/kernels/intrinsics.h"

namespace sluice::gpu {

// How a format is named in templates. values, bytes: of one block.
struct F32 {};
struct F16 {};
struct BF16 {};
struct Q4_0 {
  static constexpr uint32_t values = 32, bytes = 18;
  static constexpr bool has_min = false;
};
struct Q4_1 {
  static constexpr uint32_t values = 32, bytes = 20;
  static constexpr bool has_min = true;
};
struct Q5_0 {
  static constexpr uint32_t values = 32, bytes = 22;
  static constexpr bool has_min = false;
};
struct Q5_1 {
  static constexpr uint32_t values = 32, bytes = 24;
  static constexpr bool has_min = true;
};
struct Q8_0 {
  static constexpr uint32_t values = 32, bytes = 34;
  static constexpr bool has_min = false;
};
struct Q4_K {
  static constexpr uint32_t values = 256, bytes = 144;
  static constexpr bool has_min = true;
};
struct Q6_K {
  static constexpr uint32_t values = 256, bytes = 210;
  static constexpr bool has_min = false;
};

// Values 16g..16g+15 of a row: scale * q + min, q packed as signed bytes.
struct Group {
  int32_t q[4];
  float scale, min;
};

SLUICE_DEVICE float load_half(const std::byte* p) { return half_bits_to_float(*reinterpret_cast<const uint16_t*>(p)); }

// value - offset in each byte; values below 128.
SLUICE_DEVICE int32_t subtract_bytes(uint32_t values, uint32_t offset) {
  return static_cast<int32_t>(((values | 0x80808080u) - offset * 0x01010101u) ^ 0x80808080u);
}

// Bits 0..3 of n to bit 4 of the bytes 0..3: no two of the partial products meet.
SLUICE_DEVICE uint32_t fifth_bits(uint32_t n) { return (n & 15) * 0x02040810u & 0x10101010u; }

SLUICE_DEVICE uint32_t low_nibbles(uint32_t word, uint32_t shift) { return word >> shift & 0x0f0f0f0fu; }

// 16 bytes, by one load where they are aligned; the lanes of a warp agree on that.
SLUICE_DEVICE Vec16 load_words4(const std::byte* p) {
  if (reinterpret_cast<uintptr_t>(p) % 16 == 0) return load16(p);
  Vec16 v;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 4; ++i) v.words[i] = load_bytes4(p + 4 * i);
  return v;
}

// --- Q4_0, Q4_1, Q5_0, Q5_1: one packing of nibbles, with or without fifth bits ---

// Word `word` of a block's bytes: its low (shift 0) or high nibbles, values 4 * word (+ 16), as signed bytes.
SLUICE_DEVICE int32_t nibbles_of(Q4_0, const std::byte* block, uint32_t word, uint32_t shift) {
  return subtract_bytes(low_nibbles(load_bytes4(block + 2 + 4 * word), shift), 8);
}
SLUICE_DEVICE int32_t nibbles_of(Q4_1, const std::byte* block, uint32_t word, uint32_t shift) {
  return static_cast<int32_t>(low_nibbles(load_bytes4(block + 4 + 4 * word), shift));
}
SLUICE_DEVICE int32_t nibbles_of(Q5_0, const std::byte* block, uint32_t word, uint32_t shift) {
  const uint32_t fifth = fifth_bits(load_bytes4(block + 2) >> (4 * word + 4 * shift));
  return subtract_bytes(low_nibbles(load_bytes4(block + 6 + 4 * word), shift) | fifth, 16);
}
SLUICE_DEVICE int32_t nibbles_of(Q5_1, const std::byte* block, uint32_t word, uint32_t shift) {
  const uint32_t fifth = fifth_bits(load_bytes4(block + 4) >> (4 * word + 4 * shift));
  return static_cast<int32_t>(low_nibbles(load_bytes4(block + 8 + 4 * word), shift) | fifth);
}

template <class F>
SLUICE_DEVICE Group load_group(F format, const std::byte* row, uint32_t g) {
  const std::byte* block = row + uint64_t{g / 2} * F::bytes;
  Group group;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 4; ++i) group.q[i] = nibbles_of(format, block, i, 4 * (g % 2));
  group.scale = load_half(block);
  group.min = F::has_min ? load_half(block + 2) : 0.0f;
  return group;
}

// --- Q8_0 ---

SLUICE_DEVICE Group load_group(Q8_0, const std::byte* row, uint32_t g) {
  const std::byte* block = row + uint64_t{g / 2} * Q8_0::bytes;
  Group group;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 4; ++i) group.q[i] = static_cast<int32_t>(load_bytes4(block + 2 + 16 * (g % 2) + 4 * i));
  group.scale = load_half(block);
  group.min = 0.0f;
  return group;
}

// --- Q4_K ---

SLUICE_DEVICE uint32_t byte_at(const std::byte* p) { return static_cast<uint32_t>(*p); }

// d * scale and -(dmin * min) of sub-block s.
SLUICE_DEVICE void q4_k_scales(const std::byte* block, uint32_t s, float& scale, float& min) {
  const std::byte* scales = block + 4;
  uint32_t scale_bits = byte_at(scales + s % 4 + (s < 4 ? 0 : 8)), min_bits;
  if (s < 4) {
    scale_bits &= 63;
    min_bits = byte_at(scales + s + 4) & 63;
  } else {
    min_bits = scale_bits >> 4 | byte_at(scales + s) >> 6 << 4;
    scale_bits = (scale_bits & 15) | byte_at(scales + s - 4) >> 6 << 4;
  }
  scale = load_half(block) * static_cast<float>(scale_bits);
  min = -(load_half(block + 2) * static_cast<float>(min_bits));
}

SLUICE_DEVICE Group load_group(Q4_K, const std::byte* row, uint32_t g) {
  const std::byte* block = row + uint64_t{g / 16} * Q4_K::bytes;
  const uint32_t s = g % 16 / 2;
  const Vec16 words = load_words4(block + 16 + 32 * (s / 2) + 16 * (g % 2));
  Group group;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 4; ++i) group.q[i] = static_cast<int32_t>(low_nibbles(words.words[i], 4 * (s % 2)));
  q4_k_scales(block, s, group.scale, group.min);
  return group;
}

// --- Q6_K ---

// Four values of part `part` (0..3) of a half block, from a word of `low` and one of `high`.
SLUICE_DEVICE int32_t q6_k_word(uint32_t low, uint32_t high, uint32_t part) {
  const uint32_t high_bits = (high >> (2 * part) & 0x03030303u) << 4;
  return subtract_bytes(low_nibbles(low, part / 2 * 4) | high_bits, 32);
}

SLUICE_DEVICE float q6_k_scale(const std::byte* block, uint32_t s) {
  return load_half(block + 208) * static_cast<float>(static_cast<int8_t>(block[192 + s]));
}

SLUICE_DEVICE Group load_group(Q6_K, const std::byte* row, uint32_t g) {
  const std::byte* block = row + uint64_t{g / 16} * Q6_K::bytes;
  const uint32_t s = g % 16, half_block = s / 8, part = s % 8 / 2, column = 16 * (s % 2);
  const std::byte* low = block + 64 * half_block + 32 * (part % 2) + column;
  const std::byte* high = block + 128 + 32 * half_block + column;
  Group group;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 4; ++i) group.q[i] = q6_k_word(load_bytes4(low + 4 * i), load_bytes4(high + 4 * i), part);
  group.scale = q6_k_scale(block, s);
  group.min = 0.0f;
  return group;
}

}  // namespace sluice::gpu
