// AVX-512 with VNNI: sixteen rows at a time; included by simd.h alone, simd_scalar.h has the contracts.
#pragma once

#include <immintrin.h>

namespace sluice::cpu::SLUICE_ISA {

inline constexpr uint32_t lanes = 16;
typedef float F __attribute__((vector_size(64)));
typedef int32_t I __attribute__((vector_size(64)));

[[gnu::always_inline]] inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }

[[gnu::always_inline]] inline __m128i load16(const std::byte* p) { return load<__m128i>(p); }
[[gnu::always_inline]] inline __m256i load_pair(const std::byte* a, const std::byte* b) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load16(a)), load16(b), 1);
}
[[gnu::always_inline]] inline I load_strip(const std::byte* const* p, uint64_t at) {
  const __m256i low = load_pair(p[0] + at, p[1] + at), high = load_pair(p[2] + at, p[3] + at);
  return (I)_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}
[[gnu::always_inline]] inline I unpack_lo32(I a, I b) { return (I)_mm512_unpacklo_epi32((__m512i)a, (__m512i)b); }
[[gnu::always_inline]] inline I unpack_hi32(I a, I b) { return (I)_mm512_unpackhi_epi32((__m512i)a, (__m512i)b); }
[[gnu::always_inline]] inline I unpack_lo64(I a, I b) { return (I)_mm512_unpacklo_epi64((__m512i)a, (__m512i)b); }
[[gnu::always_inline]] inline I unpack_hi64(I a, I b) { return (I)_mm512_unpackhi_epi64((__m512i)a, (__m512i)b); }

[[gnu::always_inline]] inline F half_to_float(I h) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)h)); }
[[gnu::always_inline]] inline F load_halves(const std::byte* p) { return _mm512_cvtph_ps(load<__m256i>(p)); }

// vpdpbusd takes unsigned weights: signed ones are moved up by 128.
inline constexpr int signed_offset = -128;
[[gnu::always_inline]] inline I from_signed(I x) { return (I)_mm512_xor_si512((__m512i)x, _mm512_set1_epi8(-128)); }

template <Values, uint32_t n>
struct Dot {
  __m512i acc{};

  [[gnu::always_inline]] void start(I init) { acc = (__m512i)init; }
  template <uint32_t k>
  [[gnu::always_inline]] void step(I w, const int8_t* a) {
    acc = _mm512_dpbusd_epi32(acc, (__m512i)w, _mm512_set1_epi32(load<int32_t>(a)));
  }
  [[gnu::always_inline]] I total() const { return (I)acc; }
};

[[gnu::always_inline]] inline I load_bytes(const std::byte* p) { return (I)_mm512_cvtepu8_epi32(load16(p)); }
[[gnu::always_inline]] inline void store_low_bytes(void* p, I x) { store(p, _mm512_cvtepi32_epi8((__m512i)x)); }
[[gnu::always_inline]] inline I load_words(const std::byte* p) { return (I)_mm512_cvtepu16_epi32(load<__m256i>(p)); }

[[gnu::always_inline]] inline I weighted_sums(const int16_t* s, int16_t lo, int16_t hi) {
  const int32_t weights = static_cast<uint16_t>(lo) | static_cast<int32_t>(hi) * 65536;
  return (I)_mm512_dpwssd_epi32(_mm512_setzero_si512(), _mm512_set1_epi32(load<int32_t>(s)),
                                _mm512_set1_epi32(weights));
}

}  // namespace sluice::cpu::SLUICE_ISA
