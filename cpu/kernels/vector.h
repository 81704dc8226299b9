// Sixteen floats at a time, written once for all instruction sets: a Vec is one zmm, two ymm or four xmm
// registers. Every function is a fixed sequence of IEEE operations, products fused only where fma() says
// so, so that its bits are the same on every ISA. All is local to the including source and inlined, so that the linker
// never shares code compiled for a newer ISA.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "cpu/kernels/kernels.h"

#pragma GCC diagnostic ignored "-Wpsabi"

namespace sluice::cpu::SLUICE_ISA {
namespace {

namespace level {
enum Level { scalar, avx2, avx512 };
}
constexpr level::Level this_level = level::SLUICE_ISA;

constexpr uint32_t lanes = 16;
constexpr uint32_t n_parts = this_level == level::avx512 ? 1 : this_level == level::avx2 ? 2 : 4;
constexpr uint32_t part_lanes = lanes / n_parts;
constexpr float infinity = __builtin_inff();

// 16 values of 32 bits in as many registers as they need. (One vector type of 64 bytes would do for
// clang; g++ keeps such a type in memory where the ISA has no register for it.)
template <class T>
struct Wide {
  using Part [[gnu::vector_size(64 / n_parts)]] = T;
  Part p[n_parts];

  Wide() = default;
  [[gnu::always_inline]] Wide(T x) {  // x - 0, since x + 0 would lose the sign of -0
    for (Part& part : p) part = x - Part{};
  }

  // r.p[i] = f(i) for all parts.
  template <class F>
  [[gnu::always_inline]] static Wide make(F f) {
    Wide r;
    for (uint32_t i = 0; i < n_parts; ++i) r.p[i] = f(i);
    return r;
  }
#define SLUICE_WIDE_OPERATOR(op)                                                              \
  [[gnu::always_inline]] friend Wide operator op(const Wide& a, const Wide& b) {              \
    return make([&](uint32_t i) __attribute__((always_inline)) { return a.p[i] op b.p[i]; }); \
  }
  SLUICE_WIDE_OPERATOR(+)
  SLUICE_WIDE_OPERATOR(-)
  SLUICE_WIDE_OPERATOR(*)
  SLUICE_WIDE_OPERATOR(/)
  SLUICE_WIDE_OPERATOR(&)
  SLUICE_WIDE_OPERATOR(|)
#undef SLUICE_WIDE_OPERATOR
  [[gnu::always_inline]] Wide& operator+=(const Wide& b) { return *this = *this + b; }
  [[gnu::always_inline]] Wide operator-() const {
    return make([&](uint32_t i) __attribute__((always_inline)) { return -p[i]; });
  }
  [[gnu::always_inline]] friend Wide operator<<(const Wide& a, int n) {
    return make([&](uint32_t i) __attribute__((always_inline)) { return a.p[i] << n; });
  }
  [[gnu::always_inline]] friend Wide operator>>(const Wide& a, int n) {
    return make([&](uint32_t i) __attribute__((always_inline)) { return a.p[i] >> n; });
  }
};
using Vec = Wide<float>;
using UVec = Wide<uint32_t>;
using IVec = Wide<int32_t>;
using Vec4 [[gnu::vector_size(16)]] = float;

// The same bits as another type.
template <class To, class From>
[[gnu::always_inline]] inline Wide<To> as(const Wide<From>& v) {
  using Part = typename Wide<To>::Part;
  return Wide<To>::make([&](uint32_t i) __attribute__((always_inline)) { return (Part)v.p[i]; });
}
[[gnu::always_inline]] inline UVec bits(const Vec& v) { return as<uint32_t>(v); }
[[gnu::always_inline]] inline Vec from_bits(const UVec& v) { return as<float>(v); }

// a > b ? x : y, lane by lane; false for NaN.
template <class T, class X>
[[gnu::always_inline]] inline Wide<X> if_greater(const Wide<T>& a, const Wide<T>& b, const Wide<X>& x,
                                                 const Wide<X>& y) {
  return Wide<X>::make([&](uint32_t i) __attribute__((always_inline)) { return a.p[i] > b.p[i] ? x.p[i] : y.p[i]; });
}
[[gnu::always_inline]] inline Vec max(const Vec& a, const Vec& b) { return if_greater(a, b, a, b); }

// a * b + c, rounded once. The parts' type is a parameter so that only the branch that is taken has to fit it.
template <level::Level isa, class P = Vec::Part>
[[gnu::always_inline]] inline Vec fma_as(const Vec& a, const Vec& b, const Vec& c) {
  if constexpr (isa == level::avx512)
    return Vec::make([&](uint32_t i) __attribute__((always_inline)) {
      return (P)_mm512_fmadd_ps((__m512)P(a.p[i]), (__m512)P(b.p[i]), (__m512)P(c.p[i]));
    });
  else if constexpr (isa == level::avx2)
    return Vec::make([&](uint32_t i) __attribute__((always_inline)) {
      return (P)_mm256_fmadd_ps((__m256)P(a.p[i]), (__m256)P(b.p[i]), (__m256)P(c.p[i]));
    });
  else {
    Vec r = c;
    for (uint32_t i = 0; i < lanes; ++i) {
      float& x = reinterpret_cast<float*>(&r)[i];
      x = __builtin_fmaf(reinterpret_cast<const float*>(&a)[i], reinterpret_cast<const float*>(&b)[i], x);
    }
    return r;
  }
}
[[gnu::always_inline]] inline Vec fma(const Vec& a, const Vec& b, const Vec& c) { return fma_as<this_level>(a, b, c); }

[[gnu::always_inline]] inline Vec load(const float* p) {
  Vec v;
  for (uint32_t i = 0; i < n_parts; ++i) std::memcpy(&v.p[i], p + i * part_lanes, sizeof v.p[i]);
  return v;
}
// The first n < 16 values, the rest zero; nothing beyond them is read.
[[gnu::always_inline]] inline Vec load_part(const float* p, uint32_t n) {
  float all[lanes] = {};
  std::memcpy(all, p, n * sizeof(float));
  return load(all);
}
[[gnu::always_inline]] inline void store(float* p, const Vec& v) {
  for (uint32_t i = 0; i < n_parts; ++i) std::memcpy(p + i * part_lanes, &v.p[i], sizeof v.p[i]);
}
[[gnu::always_inline]] inline void store_part(float* p, const Vec& v, uint32_t n) {
  std::memcpy(p, &v, n * sizeof(float));
}

// binary16 to float, in software: the product with 2^112 moves the exponent and makes subnormals
// normal, exactly.
[[gnu::always_inline]] inline Vec widen(const UVec& half) {
  const UVec magnitude = (half & 0x7fffu) << 13;
  const UVec scaled = bits(from_bits(magnitude) * 0x1p112f);
  const UVec value = if_greater(magnitude, UVec(0x0f7fffffu), scaled | 0x7f800000u, scaled);
  return from_bits(value | ((half & 0x8000u) << 16));
}

// float to binary16, nearest even, with the bits of core's float_to_half for all that is not NaN.
[[gnu::always_inline]] inline UVec narrow(const Vec& v) {
  const UVec all = bits(v);
  const UVec magnitude = all & 0x7fffffffu;
  const UVec normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  const UVec subnormal = bits(from_bits(magnitude) + 0.5f) - 0x3f000000u;
  UVec half = if_greater(magnitude, UVec(0x387fffffu), normal, subnormal);
  half = if_greater(magnitude, UVec(0x477fffffu), UVec(0x7c00u), half);
  half = if_greater(magnitude, UVec(0x7f800000u), UVec(0x7e00u), half);
  return half | ((all >> 16) & 0x8000u);
}

template <level::Level isa>
[[gnu::always_inline]] inline Vec load_half(const uint16_t* p) {
  Vec v;
  if constexpr (isa == level::avx512) {
    const __m512 all = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    std::memcpy(&v.p[0], &all, sizeof all);
  } else if constexpr (isa == level::avx2) {
    for (uint32_t i = 0; i < n_parts; ++i) {
      const __m256 part = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i * part_lanes)));
      std::memcpy(&v.p[i], &part, sizeof part);
    }
  } else {
    using Halves [[gnu::vector_size(2 * part_lanes)]] = uint16_t;
    UVec half;
    for (uint32_t i = 0; i < n_parts; ++i) {
      Halves q;
      std::memcpy(&q, p + i * part_lanes, sizeof q);
      half.p[i] = __builtin_convertvector(q, UVec::Part);
    }
    v = widen(half);
  }
  return v;
}
[[gnu::always_inline]] inline Vec load(const uint16_t* p) { return load_half<this_level>(p); }
[[gnu::always_inline]] inline Vec load_part(const uint16_t* p, uint32_t n) {
  uint16_t all[lanes] = {};
  std::memcpy(all, p, n * sizeof(uint16_t));
  return load(all);
}
[[gnu::always_inline]] inline void store_part(uint16_t* p, const Vec& v, uint32_t n) {
  const UVec half = narrow(v);
  for (uint32_t i = 0; i < n; ++i) p[i] = static_cast<uint16_t>(half.p[i / part_lanes][i % part_lanes]);
}
[[gnu::always_inline]] inline void store(uint16_t* p, const Vec& v) { store_part(p, v, lanes); }

// Sums and maxima always fold lane i with i+8, then i+4, i+2, i+1.
struct Add {
  template <class T>
  [[gnu::always_inline]] T operator()(const T& a, const T& b) const {
    return a + b;
  }
};
struct Max {
  template <class T>
  [[gnu::always_inline]] T operator()(const T& a, const T& b) const {
    return a > b ? a : b;
  }
};
template <class Fold, class V>
[[gnu::always_inline]] inline auto fold_8(const V& v, Fold fold) {
  return fold(__builtin_shufflevector(v, v, 0, 1, 2, 3), __builtin_shufflevector(v, v, 4, 5, 6, 7));
}
template <class Fold, class W>
[[gnu::always_inline]] inline auto fold_to_4(const W& v, Fold fold) {
  if constexpr (sizeof v.p[0] == 64)
    return fold_8(fold(__builtin_shufflevector(v.p[0], v.p[0], 0, 1, 2, 3, 4, 5, 6, 7),
                       __builtin_shufflevector(v.p[0], v.p[0], 8, 9, 10, 11, 12, 13, 14, 15)),
                  fold);
  else if constexpr (sizeof v.p[0] == 32) return fold_8(fold(v.p[0], v.p[1]), fold);
  else return fold(fold(v.p[0], v.p[2]), fold(v.p[1], v.p[3]));
}
template <class T, class Fold>
[[gnu::always_inline]] inline T fold_all(const Wide<T>& v, Fold fold) {
  const auto a = fold_to_4(v, fold);
  return fold(fold(a[0], a[2]), fold(a[1], a[3]));
}
[[gnu::always_inline]] inline float sum(const Vec& v) { return fold_all(v, Add()); }
// A NaN lane is passed over or is the result.
[[gnu::always_inline]] inline float maximum(const Vec& v) { return fold_all(v, Max()); }
// {sum(a), sum(b), sum(c), sum(d)}, with the bits of sum().
[[gnu::always_inline]] inline Vec4 sum_4(const Vec& a, const Vec& b, const Vec& c, const Vec& d) {
  const Vec4 a4 = fold_to_4(a, Add()), b4 = fold_to_4(b, Add());
  const Vec4 c4 = fold_to_4(c, Add()), d4 = fold_to_4(d, Add());
  const Vec4 ab = __builtin_shufflevector(a4, b4, 0, 1, 4, 5) + __builtin_shufflevector(a4, b4, 2, 3, 6, 7);
  const Vec4 cd = __builtin_shufflevector(c4, d4, 0, 1, 4, 5) + __builtin_shufflevector(c4, d4, 2, 3, 6, 7);
  return __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
}

// e^x within 2 units in the last place, subnormal results included; NaN stays NaN. The polynomial is
// that of expf in the Cephes library, on [-ln2/2, ln2/2].
[[gnu::always_inline]] inline Vec exp(const Vec& any) {
  constexpr float shifter = 0x1.8p23f;  // adding it rounds to an integer, held in the low bits
  const Vec least = -104.0f, most = 89.0f;
  const Vec floored = if_greater(least, any, least, any);
  const Vec x = if_greater(floored, most, most, floored);
  const Vec shifted = x * 1.44269504088896341f + shifter;
  const Vec n = shifted - shifter;
  const Vec r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Vec y = (p * (r * r) + r) + 1.0f;
  // 2^n in two factors, since n reaches from -150 to 128.
  const IVec whole = as<int32_t>(bits(shifted) - __builtin_bit_cast(uint32_t, shifter));
  const IVec half = whole >> 1;
  return y * as<float>((half + 127) << 23) * as<float>((whole - half + 127) << 23);
}

// tanh within 3 units in the last place; the polynomial for small |x| is that of tanhf in Cephes.
[[gnu::always_inline]] inline Vec tanh(const Vec& x) {
  const UVec sign = bits(x) & 0x80000000u;
  const Vec a = from_bits(bits(x) & 0x7fffffffu);
  const Vec large = 1.0f - 2.0f / (exp(a + a) + 1.0f);
  const Vec w = a * a;
  Vec p = w * -5.70498872745e-3f + 2.06390887954e-2f;
  p = p * w - 5.37397155531e-2f;
  p = p * w + 1.33314422036e-1f;
  p = p * w - 3.33332819422e-1f;
  const Vec small = p * w * a + a;
  return from_bits(bits(if_greater(Vec(0.625f), a, small, large)) | sign);
}

// The part of n items that falls to a share, in multiples of `unit` but for the last.
struct Part {
  uint64_t begin, end;
};
[[gnu::always_inline]] inline Part part_of(uint64_t n, Share share, uint64_t unit) {
  const uint64_t units = (n + unit - 1) / unit;
  const uint64_t begin = units * share.index / share.count * unit;
  const uint64_t end = units * (share.index + 1) / share.count * unit;
  return {begin < n ? begin : n, end < n ? end : n};
}

}  // namespace
}  // namespace sluice::cpu::SLUICE_ISA
