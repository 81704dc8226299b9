// The formats of weights (core/dtype.h) as kernels read them.
//
// A row is taken in groups of 16 values. load_group gives a group's values in their order, for kernels that
// dequantize. load_unit gives 16 values chosen so that neighbouring lanes read neighbouring bytes, each byte
// once, for products with 8-bit activations; it says which activations they meet. Both subtract the
// format's offset (8, 16, 32) from the packed bytes, so that what is left is signed.
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
  static constexpr bool one_scale = true, has_min = false;
};
struct Q4_1 {
  static constexpr uint32_t values = 32, bytes = 20;
  static constexpr bool one_scale = true, has_min = true;
};
struct Q5_0 {
  static constexpr uint32_t values = 32, bytes = 22;
  static constexpr bool one_scale = true, has_min = false;
};
struct Q5_1 {
  static constexpr uint32_t values = 32, bytes = 24;
  static constexpr bool one_scale = true, has_min = true;
};
struct Q8_0 {
  static constexpr uint32_t values = 32, bytes = 34;
  static constexpr bool one_scale = true, has_min = false;
};
struct Q4_K {
  static constexpr uint32_t values = 256, bytes = 144;
  static constexpr bool one_scale = false, has_min = true;
};
struct Q6_K {
  static constexpr uint32_t values = 256, bytes = 210;
  static constexpr bool one_scale = false, has_min = false;
};

// Values 16g..16g+15 of a row: scale * q + min, q packed as signed bytes.
struct Group {
  int32_t q[4];
  float scale, min;
};

// 16 values of a row for a product with 8-bit activations: words q[0..1] meet the activation words (of four
// bytes) x_word[0] and x_word[0]+1, q[2..3] those at x_word[1]; each pair has a scale. With one_scale both
// pairs lie in one block of 32 activations and scale[1], min[1] are not set. min counts for the whole block
// of activations and is in one unit of it, zero in the others.
struct Unit {
  int32_t q[4];
  float scale[2], min[2];
  uint32_t x_word[2];
};

SLUICE_DEVICE float load_half(const std::byte* p) { return half_bits_to_float(*reinterpret_cast<const uint16_t*>(p)); }

// value - offset in each byte; values below 128.
SLUICE_DEVICE int32_t subtract_bytes(uint32_t values, uint32_t offset) {
  return static_cast<int32_t>(((values | 0x80808080u) - offset * 0x01010101u) ^ 0x80808080u);
}

// Bits 0..3 of n to bit 4 of the bytes 0..3.
SLUICE_DEVICE uint32_t fifth_bits(uint32_t n) { return (n & 1) << 4 | (n & 2) << 11 | (n & 4) << 18 | (n & 8) << 25; }

SLUICE_DEVICE uint32_t low_nibbles(uint32_t word, uint32_t shift) { return word >> shift & 0x0f0f0f0fu; }

// 16 bytes, by one load where they are aligned; the lanes of a warp agree on that.
SLUICE_DEVICE Vec16 load_words4(const std::byte* p) {
  if (reinterpret_cast<uintptr_t>(p) % 16 == 0) return load16(p);
  Vec16 v;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 4; ++i) v.words[i] = load_bytes4(p + 4 * i);
  return v;
}

// Likewise 8 bytes.
struct alignas(8) Vec8 {
  uint32_t words[2];
};
SLUICE_DEVICE Vec8 load_words2(const std::byte* p) {
  if (reinterpret_cast<uintptr_t>(p) % 8 == 0) return *reinterpret_cast<const Vec8*>(p);
  return {{load_bytes4(p), load_bytes4(p + 4)}};
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

// Nibble bytes 8h..8h+7 of a block: their low halves are words 2h, 2h+1 of it, their high ones 4+2h, 5+2h.
template <class F>
SLUICE_DEVICE Unit load_unit(F format, const std::byte* row, uint32_t u) {
  const uint32_t h = u % 2;
  const std::byte* block = row + uint64_t{u / 2} * F::bytes;
  Unit unit;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 4; ++i) unit.q[i] = nibbles_of(format, block, 2 * h + i % 2, i / 2 * 4);
  unit.scale[0] = load_half(block);
  unit.min[0] = F::has_min && h == 0 ? load_half(block + 2) : 0.0f;
  unit.x_word[0] = u / 2 * 8 + 2 * h;
  unit.x_word[1] = unit.x_word[0] + 4;
  return unit;
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

SLUICE_DEVICE Unit load_unit(Q8_0 format, const std::byte* row, uint32_t u) {
  const Group group = load_group(format, row, u);
  Unit unit;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 4; ++i) unit.q[i] = group.q[i];
  unit.scale[0] = group.scale;
  unit.min[0] = 0.0f;
  unit.x_word[0] = 4 * u;
  unit.x_word[1] = 4 * u + 2;
  return unit;
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

// Eight bytes, with 8 values of each of two neighbouring sub-blocks.
SLUICE_DEVICE Unit load_unit(Q4_K, const std::byte* row, uint32_t u) {
  const std::byte* block = row + uint64_t{u / 16} * Q4_K::bytes;
  const uint32_t pair = u % 16 / 4, column = u % 4;
  const Vec8 words = load_words2(block + 16 + 32 * pair + 8 * column);
  Unit unit;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 2; ++i) {
    unit.q[i] = static_cast<int32_t>(low_nibbles(words.words[i], 0));
    unit.q[2 + i] = static_cast<int32_t>(low_nibbles(words.words[i], 4));
  }
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 2; ++i) {
    q4_k_scales(block, 2 * pair + i, unit.scale[i], unit.min[i]);
    if (column != 0) unit.min[i] = 0.0f;
    unit.x_word[i] = (u / 16 * 8 + 2 * pair + i) * 8 + 2 * column;
  }
  return unit;
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

// Eight bytes of `low`, whose halves belong to parts p and p+2, and the bytes of `high` above them.
SLUICE_DEVICE Unit load_unit(Q6_K, const std::byte* row, uint32_t u) {
  const std::byte* block = row + uint64_t{u / 16} * Q6_K::bytes;
  const uint32_t half_block = u % 16 / 8, p = u / 4 % 2, column = u % 4;
  const std::byte* low = block + 64 * half_block + 32 * p + 8 * column;
  const std::byte* high = block + 128 + 32 * half_block + 8 * column;
  Unit unit;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 2; ++i) {
    const uint32_t low_word = load_bytes4(low + 4 * i), high_word = load_bytes4(high + 4 * i);
    unit.q[i] = q6_k_word(low_word, high_word, p);
    unit.q[2 + i] = q6_k_word(low_word, high_word, p + 2);
  }
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 2; ++i) {
    const uint32_t part = p + 2 * i;
    unit.scale[i] = q6_k_scale(block, 8 * half_block + 2 * part + column / 2);
    unit.min[i] = 0.0f;
    unit.x_word[i] = (u / 16 * 8 + 4 * half_block + part) * 8 + 2 * column;
  }
  return unit;
}

}  // namespace sluice::gpu
