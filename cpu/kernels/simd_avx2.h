// AVX2, FMA and F16C: eight rows at a time; included by simd.h alone, simd_scalar.h has the contracts.
#pragma once

#include <immintrin.h>

namespace sluice::cpu::SLUICE_ISA {

inline constexpr uint32_t lanes = 8;
typedef float F __attribute__((vector_size(32)));
typedef int32_t I __attribute__((vector_size(32)));

[[gnu::always_inline]] inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }

[[gnu::always_inline]] inline __m128i load16(const std::byte* p) { return load<__m128i>(p); }
[[gnu::always_inline]] inline I load_strip(const std::byte* const* p, uint64_t at) {
  return (I)_mm256_inserti128_si256(_mm256_castsi128_si256(load16(p[0] + at)), load16(p[1] + at), 1);
}
[[gnu::always_inline]] inline I unpack_lo32(I a, I b) { return (I)_mm256_unpacklo_epi32((__m256i)a, (__m256i)b); }
[[gnu::always_inline]] inline I unpack_hi32(I a, I b) { return (I)_mm256_unpackhi_epi32((__m256i)a, (__m256i)b); }
[[gnu::always_inline]] inline I unpack_lo64(I a, I b) { return (I)_mm256_unpacklo_epi64((__m256i)a, (__m256i)b); }
[[gnu::always_inline]] inline I unpack_hi64(I a, I b) { return (I)_mm256_unpackhi_epi64((__m256i)a, (__m256i)b); }

[[gnu::always_inline]] inline F half_to_float(I h) {
  const __m256i low = _mm256_and_si256((__m256i)h, _mm256_set1_epi32(0xffff));
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x08);
  return _mm256_cvtph_ps(_mm256_castsi256_si128(packed));
}
[[gnu::always_inline]] inline F load_halves(const std::byte* p) { return _mm256_cvtph_ps(load16(p)); }

inline constexpr int signed_offset = 0;
[[gnu::always_inline]] inline I from_signed(I x) { return x; }

// Pairs of products are summed in 16 bits, where 32767 must not be passed: 8 x 2 nibbles give at most
// 16 * 15 * 127, 4 x 2 values of five bits 8 * 31 * 127, 2 x 2 of six bits 4 * 63 * 127, and 2 signed ones 2 * 128 *
// 127.
template <Values V, uint32_t n>
struct Dot {
  static constexpr uint32_t run = V == Values::nibble ? n : V == Values::five_bit ? 4 : V == Values::six_bit ? 2 : 1;
  __m256i acc{}, pairs{};

  [[gnu::always_inline]] void start(I init) { acc = (__m256i)init; }
  template <uint32_t k>
  [[gnu::always_inline]] void step(I w, const int8_t* a) {
    const __m256i values = _mm256_set1_epi32(load<int32_t>(a));
    const __m256i products =
        V == Values::signed8 ? _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)w), _mm256_sign_epi8(values, (__m256i)w))
                             : _mm256_maddubs_epi16((__m256i)w, values);
    pairs = k % run == 0 ? products : _mm256_add_epi16(pairs, products);
    asm("" : "+x"(pairs));  // added here: g++ would put it off, and keep all products on the stack
    if constexpr (k % run == run - 1) acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  [[gnu::always_inline]] I total() const { return (I)acc; }
};

[[gnu::always_inline]] inline I load_bytes(const std::byte* p) {
  return (I)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i_u*>(p)));
}
[[gnu::always_inline]] inline void store_low_bytes(void* p, I x) {
  const __m256i picked = _mm256_shuffle_epi8(
      (__m256i)x,
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1)));
  const __m128i low = _mm256_castsi256_si128(picked), high = _mm256_extracti128_si256(picked, 1);
  store(p, _mm_cvtsi128_si64(_mm_unpacklo_epi32(low, high)));
}
[[gnu::always_inline]] inline I load_words(const std::byte* p) { return (I)_mm256_cvtepu16_epi32(load16(p)); }

[[gnu::always_inline]] inline I weighted_sums(const int16_t* s, int16_t lo, int16_t hi) {
  const int32_t weights = static_cast<uint16_t>(lo) | static_cast<int32_t>(hi) * 65536;
  return (I)_mm256_madd_epi16(_mm256_set1_epi32(load<int32_t>(s)), _mm256_set1_epi32(weights));
}

}  // namespace sluice::cpu::SLUICE_ISA
