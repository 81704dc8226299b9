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
    const float scaled = __builtin_bit_cast(float, x.words[i]) * factor;
    const int32_t q = __builtin_bit_cast(int32_t, scaled + nearest_magic) - 0x4b400000;
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
  const int32_t largest = largest_bits(x);
  const bool finite = largest < infinity_bits;
  const auto most = __builtin_bit_cast(float, largest);
  const bool usual = finite && most >= smallest_max;
  int32_t sum = 0;
  const uint32_t bytes = usual ? rounded_bytes(x, 127.0f / most, sum) : 0;
  sum = sum_of_8(sum);
  if (!inside) return;
  *reinterpret_cast<uint32_t*>(row + column) = bytes;
  *reinterpret_cast<Pairs*>(row + layout.bf16 +
                            2 * column) = {{bf16_pair(x.words[0], x.words[1]), bf16_pair(x.words[2], x.words[3])}};
  if (column % 32 != 0) return;
  const float scale = usual ? most / 127.0f : finite ? 0.0f : __builtin_nanf("");
  reinterpret_cast<Q8Scale*>(row + layout.scales)[column / 32] = {scale, static_cast<float>(sum)};
}

}  // namespace sluice::gpu
