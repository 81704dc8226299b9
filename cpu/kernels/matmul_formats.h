// Quantized weight formats for products with q8 activations.
//
// A format unpacks one unit (a ggml block) of all rows of a panel into Blocks of 32 columns and gives
// each, with its index, to a visitor; so a WeightBlock lives in registers where the visitor uses it at once.
// Where several units in a row can be unpacked with fewer loads, run_units tells how many and unpack_run
// does it. `scattered`: a unit is so long, and read in such an order, that the processor does not foresee it.
// The value of column c in a row is scale * (w[c] + offset), or scale * w[c] + second where has_min;
// with two_scales `second` is the scale of columns 16..31.
#pragma once

#include "cpu/kernels/simd.h"

namespace sluice::cpu::SLUICE_ISA {

struct WeightBlock {
  I w[8];  // w[k] holds columns 4k..4k+3
  F scale, second;
};

// Low nibbles are columns 0..15, high ones 16..31.
[[gnu::always_inline]] inline void split_nibbles(const Quad& q, WeightBlock& block) {
  unroll<4>([&](auto k) __attribute__((always_inline)) {
    block.w[k] = q.v[k] & 0x0f0f0f0f;
    block.w[4 + k] = (q.v[k] >> 4) & 0x0f0f0f0f;
  });
}

struct FormatQ4_0 {
  static constexpr uint32_t unit_bytes = 18, unit_blocks = 1;
  static constexpr Values values = Values::nibble;
  static constexpr int offset = -8;
  static constexpr bool has_min = false, two_scales = false, scattered = false;

  template <class Visitor>
  [[gnu::always_inline]] static void unpack(const Rows& rows, uint64_t at, const Visitor& visit) {
    WeightBlock block;
    block.scale = half_to_float(load_quad(rows, at).v[0]);
    split_nibbles(load_quad(rows, at + 2), block);
    visit(block, 0);
  }
};

struct FormatQ4_1 {
  static constexpr uint32_t unit_bytes = 20, unit_blocks = 1;
  static constexpr Values values = Values::nibble;
  static constexpr int offset = 0;
  static constexpr bool has_min = true, two_scales = false, scattered = false;
  static constexpr uint32_t run_units = 4;

  [[gnu::always_inline]] static void set_scales(I head, WeightBlock& block) {
    block.scale = half_to_float(head);
    block.second = half_to_float(head >> 16);
  }

  template <class Visitor>
  [[gnu::always_inline]] static void unpack(const Rows& rows, uint64_t at, const Visitor& visit) {
    WeightBlock block;
    set_scales(load_quad(rows, at).v[0], block);
    split_nibbles(load_quad(rows, at + 4), block);
    visit(block, 0);
  }

  // Four blocks are twenty words: each fifth is a head.
  template <class Visitor>
  [[gnu::always_inline]] static void unpack_run(const Rows& rows, uint64_t at, const Visitor& visit) {
    I words[20];
    unroll<4>([&](auto b) __attribute__((always_inline)) {
      if constexpr (b == 0) load_words_into(rows, at, words);
      load_words_into(rows, at + 16 * (b + 1), words + 4 * (b + 1));
      WeightBlock block;
      set_scales(words[5 * b], block);
      split_nibbles({{words[5 * b + 1], words[5 * b + 2], words[5 * b + 3], words[5 * b + 4]}}, block);
      visit(block, b);
    });
  }

 private:
  [[gnu::always_inline]] static void load_words_into(const Rows& rows, uint64_t at, I* words) {
    const Quad quad = load_quad(rows, at);
    unroll<4>([&](auto i) __attribute__((always_inline)) { words[i] = quad.v[i]; });
  }
};

// Bits 4k..4k+3 of each lane, each in bit 4 of a byte of its own.
[[gnu::always_inline]] inline I fifth_bits(I high, uint32_t k) {
  const I four = (high >> (4 * k)) & 0xf;
  const I two = four | (four << 7);
  return ((two | (two << 14)) & 0x01010101) << 4;
}

[[gnu::always_inline]] inline void join_fifth_bits(I high, WeightBlock& block) {
  unroll<8>([&](auto k) __attribute__((always_inline)) { block.w[k] |= fifth_bits(high, k); });
}

struct FormatQ5_0 {
  static constexpr uint32_t unit_bytes = 22, unit_blocks = 1;
  static constexpr Values values = Values::five_bit;
  static constexpr int offset = -16;
  static constexpr bool has_min = false, two_scales = false, scattered = false;

  template <class Visitor>
  [[gnu::always_inline]] static void unpack(const Rows& rows, uint64_t at, const Visitor& visit) {
    WeightBlock block;
    const Quad head = load_quad(rows, at);
    block.scale = half_to_float(head.v[0]);
    split_nibbles(load_quad(rows, at + 6), block);
    join_fifth_bits(((head.v[0] >> 16) & 0xffff) | (head.v[1] << 16), block);
    visit(block, 0);
  }
};

struct FormatQ5_1 {
  static constexpr uint32_t unit_bytes = 24, unit_blocks = 1;
  static constexpr Values values = Values::five_bit;
  static constexpr int offset = 0;
  static constexpr bool has_min = true, two_scales = false, scattered = false;

  template <class Visitor>
  [[gnu::always_inline]] static void unpack(const Rows& rows, uint64_t at, const Visitor& visit) {
    WeightBlock block;
    const Quad head = load_quad(rows, at);
    block.scale = half_to_float(head.v[0]);
    block.second = half_to_float(head.v[0] >> 16);
    split_nibbles(load_quad(rows, at + 8), block);
    join_fifth_bits(head.v[1], block);
    visit(block, 0);
  }
};

struct FormatQ8_0 {
  static constexpr uint32_t unit_bytes = 34, unit_blocks = 1;
  static constexpr Values values = Values::signed8;
  static constexpr int offset = signed_offset;
  static constexpr bool has_min = false, two_scales = false, scattered = false;

  template <class Visitor>
  [[gnu::always_inline]] static void unpack(const Rows& rows, uint64_t at, const Visitor& visit) {
    WeightBlock block;
    block.scale = half_to_float(load_quad(rows, at).v[0]);
    const Quad lo = load_quad(rows, at + 2), hi = load_quad(rows, at + 18);
    unroll<4>([&](auto k) __attribute__((always_inline)) {
      block.w[k] = from_signed(lo.v[k]);
      block.w[4 + k] = from_signed(hi.v[k]);
    });
    visit(block, 0);
  }
};

// The value of byte `i` (0..3) of each lane.
[[gnu::always_inline]] inline F byte_to_float(I x, uint32_t i) { return to_float((x >> (8 * i)) & 0xff); }
[[gnu::always_inline]] inline F signed_byte_to_float(I x, uint32_t i) { return to_float((x << (24 - 8 * i)) >> 24); }

struct FormatQ4_K {
  static constexpr uint32_t unit_bytes = 144, unit_blocks = 8;
  static constexpr Values values = Values::nibble;
  static constexpr int offset = 0;
  static constexpr bool has_min = true, two_scales = false, scattered = false;

  template <class Visitor>
  [[gnu::always_inline]] static void unpack(const Rows& rows, uint64_t at, const Visitor& visit) {
    const Quad head = load_quad(rows, at);
    const F d = half_to_float(head.v[0]), minus_dmin = -half_to_float(head.v[0] >> 16);
    const I scales[2] = {head.v[1] & 0x3f3f3f3f, (head.v[3] & 0x0f0f0f0f) | ((head.v[1] >> 2) & 0x30303030)};
    const I mins[2] = {head.v[2] & 0x3f3f3f3f, ((head.v[3] >> 4) & 0x0f0f0f0f) | ((head.v[2] >> 2) & 0x30303030)};
    for (uint32_t k = 0; k < 4; ++k) {
      const Quad lo = load_quad(rows, at + 16 + 32 * k), hi = load_quad(rows, at + 32 + 32 * k);
      unroll<2>([&](auto high) __attribute__((always_inline)) {
        const uint32_t s = 2 * k + high;
        WeightBlock block;
        block.scale = d * byte_to_float(scales[k / 2], s % 4);
        block.second = minus_dmin * byte_to_float(mins[k / 2], s % 4);
        unroll<4>([&](auto i) __attribute__((always_inline)) {
          block.w[i] = (lo.v[i] >> (4 * high)) & 0x0f0f0f0f;
          block.w[4 + i] = (hi.v[i] >> (4 * high)) & 0x0f0f0f0f;
        });
        visit(block, s);
      });
    }
  }
};

struct FormatQ6_K {
  static constexpr uint32_t unit_bytes = 210, unit_blocks = 8;
  static constexpr Values values = Values::six_bit;
  static constexpr int offset = -32;
  static constexpr bool has_min = false, two_scales = true, scattered = true;

  // Of each byte four bits of `low` and, above them, two of `high`; parts 0..3 of a half take bits 0, 0, 4, 4
  // and 0, 2, 4, 6 on.
  [[gnu::always_inline]] static I join(I low, I high, uint32_t part) {
    const I moved = part < 2 ? high << static_cast<int>(4 - 2 * part) : high >> static_cast<int>(2 * part - 4);
    return ((low >> static_cast<int>(part / 2 * 4)) & 0x0f0f0f0f) | (moved & 0x30303030);
  }

  template <class Visitor>
  [[gnu::always_inline]] static void unpack(const Rows& rows, uint64_t at, const Visitor& visit) {
    const Quad scales = load_quad(rows, at + 192);
    const F d = half_to_float(load_quad(rows, at + 194).v[3] >> 16);
    for (uint32_t half = 0; half < 2; ++half) {
      Quad low[4], high[2];
      unroll<4>([&](auto i) __attribute__((always_inline)) { low[i] = load_quad(rows, at + 64 * half + 16 * i); });
      unroll<2>([&](auto i)
                    __attribute__((always_inline)) { high[i] = load_quad(rows, at + 128 + 32 * half + 16 * i); });
      unroll<4>([&](auto part) __attribute__((always_inline)) {
        WeightBlock block;
        const I four_scales = scales.v[2 * half + part / 2];
        block.scale = d * signed_byte_to_float(four_scales, 2 * (part % 2));
        block.second = d * signed_byte_to_float(four_scales, 2 * (part % 2) + 1);
        unroll<8>([&](auto i) __attribute__((always_inline)) {
          block.w[i] = join(low[2 * (part % 2) + i / 4].v[i % 4], high[i / 4].v[i % 4], part);
        });
        visit(block, 4 * half + part);
      });
    }
  }
};

}  // namespace sluice::cpu::SLUICE_ISA
