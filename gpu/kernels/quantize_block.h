// Four values of a lane as q8 activations (q8_rows.h). Eight lanes have a block of 32 values, a warp four blocks: its
// largest magnitude is scaled to 127 and the values are rounded to nearest, ties to even. A block that holds an
// infinity or a NaN becomes zeros with the scale NaN.
#pragma once

#include "gpu/kernels/formats.h"
#include "gpu/kernels/q8_rows.h"

namespace sluice::gpu {

constexpr int32_t infinity_bits = 0x7f800000;
// Below this 127 / max might be infinite; such a block counts as zero.
constexpr float smallest_max = 0x1p-119f;
constexpr float nearest_magic = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits

// Over the eight lanes of a block.
SLUICE_DEVICE int32_t max_of_8(int32_t v) {
  SLUICE_UNROLL
  for (uint32_t mask = 4; mask > 0; mask /= 2) {
    const int32_t other = shuffle_xor(v, mask);
    v = other > v ? other : v;
  }
  return v;
}
SLUICE_DEVICE int32_t sum_of_8(int32_t v) {
  SLUICE_UNROLL
  for (uint32_t mask = 4; mask > 0; mask /= 2) v += shuffle_xor(v, mask);
  return v;
}

SLUICE_DEVICE uint32_t bf16_pair(uint32_t low, uint32_t high) {
  return float_to_bf16_bits(__builtin_bit_cast(float, low)) |
         static_cast<uint32_t>(float_to_bf16_bits(__builtin_bit_cast(float, high))) << 16;
}

// What a block of this largest magnitude is scaled by.
struct BlockScale {
  bool usual;          // else its bytes are zeros
  float factor, back;  // to bytes, and from them
};
SLUICE_DEVICE BlockScale block_scale(int32_t largest) {
  const bool finite = largest < infinity_bits;
  const auto most = __builtin_bit_cast(float, largest);
  const bool usual = finite && most >= smallest_max;
  return {usual, usual ? 127.0f / most : 0.0f, usual ? most / 127.0f : finite ? 0.0f : __builtin_nanf("")};
}

SLUICE_DEVICE int32_t rounded_byte(float x, float factor) {
  return __builtin_bit_cast(int32_t, x * factor + nearest_magic) - 0x4b400000;
}

// The magnitude's bits, in whose order infinity and NaN come last.
SLUICE_DEVICE int32_t largest_bits(const Vec16& x) {
  int32_t largest = 0;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 4; ++i) {
    const auto bits = static_cast<int32_t>(x.words[i] & 0x7fffffffu);
    largest = bits > largest ? bits : largest;
  }
  return max_of_8(largest);
}

// Four values times `factor` as bytes; `sum` becomes their sum.
SLUICE_DEVICE uint32_t rounded_bytes(const Vec16& x, float factor, int32_t& sum) {
  uint32_t bytes = 0;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 4; ++i) {
    const int32_t q = rounded_byte(__builtin_bit_cast(float, x.words[i]), factor);
    sum += q;
    bytes |= (static_cast<uint32_t>(q) & 255) << (8 * i);
  }
  return bytes;
}

struct alignas(8) Pairs {
  uint32_t words[2];
};

// Columns column..column + 3 of a row, `column` four times the lane's place among its neighbours'. By whole warps;
// lanes that are not `inside` store nothing, the eight of a block are so together.
SLUICE_DEVICE void quantize_four(const Vec16& x, bool inside, std::byte* row, const Q8Layout& layout, uint64_t column) {
  const BlockScale scale = block_scale(largest_bits(x));
  int32_t sum = 0;
  const uint32_t bytes = scale.usual ? rounded_bytes(x, scale.factor, sum) : 0;
  sum = sum_of_8(sum);
  if (!inside) return;
  *reinterpret_cast<uint32_t*>(row + column) = bytes;
  *reinterpret_cast<Pairs*>(row + layout.bf16 +
                            2 * column) = {{bf16_pair(x.words[0], x.words[1]), bf16_pair(x.words[2], x.words[3])}};
  if (column % 32 != 0) return;
  reinterpret_cast<Q8Scale*>(row + layout.scales)[column / 32] = {scale.back, static_cast<float>(sum)};
}

// The same of one value, where a warp has a block: column `column`, lane() behind the block's first.
SLUICE_DEVICE void quantize_one(float x, std::byte* row, const Q8Layout& layout, uint64_t column) {
  auto largest = static_cast<int32_t>(__builtin_bit_cast(uint32_t, x) & 0x7fffffffu);
  SLUICE_UNROLL
  for (uint32_t mask = 16; mask > 0; mask /= 2) {
    const int32_t other = shuffle_xor(largest, mask);
    largest = other > largest ? other : largest;
  }
  const BlockScale scale = block_scale(largest);
  const int32_t q = scale.usual ? rounded_byte(x, scale.factor) : 0, sum = warp_sum(q);
  row[column] = static_cast<std::byte>(q);
  reinterpret_cast<uint16_t*>(row + layout.bf16)[column] = float_to_bf16_bits(x);
  if (lane() == 0) reinterpret_cast<Q8Scale*>(row + layout.scales)[column / 32] = {scale.back, static_cast<float>(sum)};
}

}  // namespace sluice::gpu
