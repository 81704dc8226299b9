// The vector words that the weight kernels are written in.
//
// A panel is `lanes` rows of a weight tile worked on together, one row in each lane. F holds a float and
// I 32 bits (often four 8-bit values) of each row. What differs between instruction sets is in
// simd_<isa>.h: lanes, F, I, loads, fma, dot products; all else is written once, here or in the kernels.
//
// Everything is inlined always: a shared copy of a function compiled for AVX-512 could be linked into code
// that runs on any machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace sluice::cpu::SLUICE_ISA {

// What 8-bit values a dot product meets: unsigned of 4, 5 or 6 bits, or signed ones (see from_signed).
enum class Values : uint8_t { nibble, five_bit, six_bit, signed8 };

template <class T>
[[gnu::always_inline]] inline T load(const void* p) {
  T value;
  __builtin_memcpy(&value, p, sizeof(T));
  return value;
}
template <class T>
[[gnu::always_inline]] inline void store(void* p, const T& value) {
  __builtin_memcpy(p, &value, sizeof(T));
}

template <uint32_t i>
struct Index {
  [[gnu::always_inline]] constexpr operator uint32_t() const { return i; }
};
template <class Body, uint32_t... i>
[[gnu::always_inline]] inline void unroll(const Body& body, std::integer_sequence<uint32_t, i...>) {
  (body(Index<i>{}), ...);
}
// body(0), …, body(n - 1) without a loop, so that arrays indexed in it become registers. `body` is a lambda
// declared always_inline.
template <uint32_t n, class Body>
[[gnu::always_inline]] inline void unroll(const Body& body) {
  unroll(body, std::make_integer_sequence<uint32_t, n>());
}

}  // namespace sluice::cpu::SLUICE_ISA

#include SLUICE_SIMD  // simd_<isa>.h, named by the build

namespace sluice::cpu::SLUICE_ISA {

[[gnu::always_inline]] inline F set(float x) { return x - F{}; }  // the bits of x, whatever its sign
[[gnu::always_inline]] inline F to_float(I x) { return __builtin_convertvector(x, F); }

// Where the rows of a panel begin: `stride` bytes apart.
struct Rows {
  const std::byte* base;
  uint64_t stride;
};

// 16 bytes of each row: v[k] holds bytes 4k..4k+3.
struct Quad {
  I v[4];
};

// The same address, but g++ no longer knows where it comes from: it would keep one for each row, and there
// are not registers for that.
[[gnu::always_inline]] inline const std::byte* opaque(const std::byte* p) {
  asm("" : "+r"(p));
  return p;
}

[[gnu::always_inline]] inline Quad load_quad(const Rows& rows, uint64_t offset) {
  const std::byte* every_fourth[lanes / 4];
  every_fourth[0] = opaque(rows.base + offset);
  if constexpr (lanes > 4) every_fourth[1] = opaque(every_fourth[0] + 4 * rows.stride);
  unroll<lanes / 4>([&](auto i) __attribute__((always_inline)) {
    if constexpr (i > 1) every_fourth[i] = opaque(every_fourth[i - 2] + 8 * rows.stride);
  });
  const I r0 = load_strip(every_fourth, 0), r1 = load_strip(every_fourth, rows.stride);
  const I r2 = load_strip(every_fourth, 2 * rows.stride), r3 = load_strip(every_fourth, 3 * rows.stride);
  const I a = unpack_lo32(r0, r1), b = unpack_lo32(r2, r3);
  const I c = unpack_hi32(r0, r1), d = unpack_hi32(r2, r3);
  return {{unpack_lo64(a, b), unpack_hi64(a, b), unpack_lo64(c, d), unpack_hi64(c, d)}};
}

// 16 floats in the order of K, as many vectors as that takes: the same lanes on every instruction set.
inline constexpr uint32_t wide = 16;
struct Wide {
  F part[wide / lanes];
};

[[gnu::always_inline]] inline Wide load_wide(const float* p) {
  Wide x;
  unroll<wide / lanes>([&](auto i) __attribute__((always_inline)) { x.part[i] = load<F>(p + i * lanes); });
  return x;
}

// As if followed by zeros; reads n < 16 values.
[[gnu::always_inline]] inline Wide load_wide(const float* p, uint32_t n) {
  float values[wide] = {};
  for (uint32_t i = 0; i < n; ++i) values[i] = p[i];
  return load_wide(values);
}

[[gnu::always_inline]] inline void fma_into(Wide& acc, const Wide& a, const Wide& b) {
  unroll<wide / lanes>([&](auto i)
                           __attribute__((always_inline)) { acc.part[i] = fma(a.part[i], b.part[i], acc.part[i]); });
}

// The sum in one order: lane i with i + 8, then i + 4, i + 2, i + 1.
[[gnu::always_inline]] inline float sum(const Wide& x) {
  typedef float F4 __attribute__((vector_size(16)));
  const auto* p = reinterpret_cast<const float*>(&x);
  const F4 by4 = (load<F4>(p) + load<F4>(p + 8)) + (load<F4>(p + 4) + load<F4>(p + 12));
  return (by4[0] + by4[2]) + (by4[1] + by4[3]);
}

}  // namespace sluice::cpu::SLUICE_ISA
