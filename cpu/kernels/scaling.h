// How blocks of floats become 8-bit integers: by their largest magnitude, to nearest, ties to even. A block that holds
// an infinity or a NaN becomes zeros with the scale NaN, so that it is noticed.
#pragma once

#include <cstdint>

namespace sluice::cpu::SLUICE_ISA {

// Below this 127 / max might be infinite; such a block counts as zero.
constexpr float smallest_max = 0x1p-119f;

// Adding it leaves the nearest integer in the low bits.
constexpr float nearest_magic = 0x1.8p23f;

struct Scaling {
  float factor, scale;  // factor 0: all become zeros
};

// For the bits of the largest magnitude, in whose order infinity and NaN come last.
[[gnu::always_inline]] inline Scaling scaling_of(uint32_t largest_bits) {
  if (largest_bits >= 0x7f800000) return {0.0f, __builtin_nanf("")};
  const auto most = __builtin_bit_cast(float, largest_bits);
  if (most < smallest_max) return {0.0f, 0.0f};
  return {127.0f / most, most / 127.0f};
}

}  // namespace sluice::cpu::SLUICE_ISA
