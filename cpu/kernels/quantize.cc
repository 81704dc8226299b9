#include "cpu/kernels/declare.h"
#include "cpu/kernels/simd.h"

namespace sluice::cpu::SLUICE_ISA {
namespace {

// Below this 127 / max might be infinite; such a block counts as zero.
constexpr float smallest_max = 0x1p-119f;

// The largest magnitude as the bits of a float, in whose order infinity and NaN come last.
[[gnu::always_inline]] inline uint32_t largest_magnitude(const float* x) {
  uint32_t largest = 0;
  for (uint32_t i = 0; i < 32; ++i) {
    const uint32_t magnitude = load<uint32_t>(x + i) & 0x7fffffff;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

// q = x * factor to the nearest integer, ties to even: adding 1.5 * 2^23 leaves it in the low bits.
[[gnu::always_inline]] inline void round_values(const float* x, float factor, int8_t* q, int16_t* sums) {
  for (uint32_t half = 0; half < 2; ++half) {
    int sum = 0;
    for (uint32_t i = 16 * half; i < 16 * half + 16; ++i) {
      const int value = __builtin_bit_cast(int32_t, x[i] * factor + 0x1.8p23f) - 0x4b400000;
      q[i] = static_cast<int8_t>(value);
      sum += value;
    }
    sums[half] = static_cast<int16_t>(sum);
  }
}

// A block that holds an infinity or a NaN becomes zeros with the scale NaN, so that it is noticed.
void quantize_block(const float* x, int8_t* q, float* scale, int16_t* sums) {
  const uint32_t bits = largest_magnitude(x);
  const auto largest = __builtin_bit_cast(float, bits);
  if (bits < 0x7f800000 && largest >= smallest_max) {
    *scale = largest / 127.0f;
    round_values(x, 127.0f / largest, q, sums);
    return;
  }
  __builtin_memset(q, 0, 32);
  __builtin_memset(sums, 0, 2 * sizeof(int16_t));
  *scale = bits < 0x7f800000 ? 0.0f : __builtin_nanf("");
}

}  // namespace

void quantize(const QuantizeCall& call, Share share) {
  if (call.format == ActFormat::f32) {
    const Range range = range_of(call.n_rows, share);
    const uint64_t row_bytes = uint64_t{call.cols} * 4;
    __builtin_memcpy(call.out + range.begin * row_bytes, call.x + uint64_t{range.begin} * call.cols,
                     (range.end - range.begin) * row_bytes);
    return;
  }
  const uint32_t blocks = call.cols / 32;
  const Range range = range_of(call.n_rows * blocks, share, 16);
  for (uint32_t i = range.begin; i < range.end; ++i) {
    const uint32_t b = i % blocks;
    std::byte* row = call.out + i / blocks * q8_row_bytes(call.cols);
    quantize_block(call.x + uint64_t{i} * 32, reinterpret_cast<int8_t*>(row) + 32 * b,
                   reinterpret_cast<float*>(row + q8_scales_offset(call.cols)) + b,
                   reinterpret_cast<int16_t*>(row + q8_sums_offset(call.cols)) + uint64_t{2} * b);
  }
}

}  // namespace sluice::cpu::SLUICE_ISA
