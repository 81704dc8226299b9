// Plain C++ for any machine, four rows at a time; included by simd.h alone.
#pragma once

namespace sluice::cpu::SLUICE_ISA {

inline constexpr uint32_t lanes = 4;
typedef float F __attribute__((vector_size(16)));
typedef int32_t I __attribute__((vector_size(16)));

[[gnu::always_inline]] inline F fma(F a, F b, F c) {
  for (uint32_t i = 0; i < lanes; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
}

// 16 bytes from each of p[0] + at, p[1] + at, …
[[gnu::always_inline]] inline I load_strip(const std::byte* const* p, uint64_t at) { return load<I>(p[0] + at); }
// Within each group of 16 bytes, the low or high halves of a and b in turns of 32 or 64 bits.
[[gnu::always_inline]] inline I unpack_lo32(I a, I b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
[[gnu::always_inline]] inline I unpack_hi32(I a, I b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
[[gnu::always_inline]] inline I unpack_lo64(I a, I b) { return __builtin_shufflevector(a, b, 0, 1, 4, 5); }
[[gnu::always_inline]] inline I unpack_hi64(I a, I b) { return __builtin_shufflevector(a, b, 2, 3, 6, 7); }

[[gnu::always_inline]] inline float half_to_float_one(uint32_t h) {
  const uint32_t magnitude = h & 0x7fff, sign = (h & 0x8000) << 16;
  if (magnitude >= 0x7c00) return __builtin_bit_cast(float, sign | 0x7f800000u | (magnitude << 13));
  const float value = __builtin_bit_cast(float, magnitude << 13) * 0x1p112f;
  return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, value) | sign);
}
// Of the low 16 bits of each lane.
[[gnu::always_inline]] inline F half_to_float(I h) {
  F out{};
  for (uint32_t i = 0; i < lanes; ++i) out[i] = half_to_float_one(static_cast<uint32_t>(h[i]) & 0xffff);
  return out;
}
// `lanes` halves in memory.
[[gnu::always_inline]] inline F load_halves(const std::byte* p) {
  F out{};
  for (uint32_t i = 0; i < lanes; ++i) out[i] = half_to_float_one(load<uint16_t>(p + 2 * i));
  return out;
}

// Signed values are kept as value - signed_offset, in 8 bits.
inline constexpr int signed_offset = 0;
[[gnu::always_inline]] inline I from_signed(I x) { return x; }

// A running sum of products: init, then step<0> … step<n - 1>, each adding 4 values of every row times the
// 4 at `a`. Exact whatever the order.
template <Values V, uint32_t n>
struct Dot {
  I acc{};

  [[gnu::always_inline]] void start(I init) { acc = init; }
  template <uint32_t k>
  [[gnu::always_inline]] void step(I w, const int8_t* a) {
    for (uint32_t r = 0; r < lanes; ++r)
      for (uint32_t c = 0; c < 4; ++c) {
        const uint32_t byte = static_cast<uint32_t>(w[r]) >> (8 * c) & 0xff;
        const int value = V == Values::signed8 ? static_cast<int8_t>(byte) : static_cast<int>(byte);
        acc[r] += value * a[c];
      }
  }
  [[gnu::always_inline]] I total() const { return acc; }
};

// `lanes` values in memory, unsigned.
[[gnu::always_inline]] inline I load_bytes(const std::byte* p) {
  return I{load<uint8_t>(p), load<uint8_t>(p + 1), load<uint8_t>(p + 2), load<uint8_t>(p + 3)};
}
// The lowest byte of each.
[[gnu::always_inline]] inline void store_low_bytes(void* p, I x) {
  const uint8_t bytes[lanes] = {static_cast<uint8_t>(x[0]), static_cast<uint8_t>(x[1]), static_cast<uint8_t>(x[2]),
                                static_cast<uint8_t>(x[3])};
  __builtin_memcpy(p, bytes, lanes);
}
[[gnu::always_inline]] inline I load_words(const std::byte* p) {
  return I{load<uint16_t>(p), load<uint16_t>(p + 2), load<uint16_t>(p + 4), load<uint16_t>(p + 6)};
}

// s[0] * lo + s[1] * hi in every lane.
[[gnu::always_inline]] inline I weighted_sums(const int16_t* s, int16_t lo, int16_t hi) {
  return I{} + (s[0] * lo + s[1] * hi);
}

}  // namespace sluice::cpu::SLUICE_ISA
