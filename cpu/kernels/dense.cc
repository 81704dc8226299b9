// What products in groups (cpu/dense_product.h) need of an instruction set; wide8.cc has the integers.
//
// bf16 is the upper half of a float: adding 0x7fff, and one more where the half that stays is odd, rounds to the
// nearest, ties to even. All instruction sets do the same.
#include "cpu/kernels/dense.h"

#include "cpu/kernels/declare.h"
#include "cpu/kernels/dequant.h"
#include "cpu/kernels/simd.h"

namespace sluice::cpu::SLUICE_ISA {
namespace {

typedef uint32_t U __attribute__((vector_size(lanes * 4)));
typedef uint16_t Halves __attribute__((vector_size(lanes * 2)));

constexpr uint32_t chunk = 256;  // a multiple of every block
static_assert(act_group % lanes == 0);

// In the low 16 bits of each lane. Rounding could make a zero of a NaN, which becomes another one instead.
[[gnu::always_inline]] inline U to_bf16(F x) {
  const U u = (U)x, is_nan = (U)(x != x);
  const U rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
  return (rounded & ~is_nan) | (is_nan & 0x7fc0u);
}

// Token `lane` of a strip in each lane, columns c and c + 1 in its halves.
[[gnu::always_inline]] inline U pair(I first, I second) { return to_bf16((F)first) | to_bf16((F)second) << 16; }

// A strip is `lanes` tokens of which the first n are there, n > 0; the others become zeros.
[[gnu::always_inline]] inline Quad load_strip_of(const float* x, uint32_t cols, uint32_t n) {
  if (n >= lanes) return load_quad({reinterpret_cast<const std::byte*>(x), uint64_t{cols} * 4}, 0);
  float values[lanes][4] = {};
  for (uint32_t t = 0; t < n; ++t) __builtin_memcpy(values[t], x + uint64_t{t} * cols, 16);
  return load_quad({reinterpret_cast<const std::byte*>(values), 16}, 0);
}

// Columns [c, c + 32) of a group whose first n tokens are there.
void pack_columns(const float* x, uint32_t cols, uint32_t n, uint32_t c, uint16_t* group) {
  for (uint32_t strip = 0; strip < act_group; strip += lanes)
    for (uint32_t i = c; i < c + 32; i += 4) {
      uint16_t* out = group + uint64_t{i} * act_group + 2 * strip;
      Quad q{};
      if (strip < n) q = load_strip_of(x + uint64_t{strip} * cols + i, cols, n - strip);
      store(out, pair(q.v[0], q.v[1]));
      store(out + 2 * act_group, pair(q.v[2], q.v[3]));
    }
}

#ifdef SLUICE_ISA_avx512
// A table of 16 values for each sub-block, rounded once, and a look-up for each weight instead of an operation for each
// step: three fourths of the time, with the bits of dequantize().
typedef uint16_t Words __attribute__((vector_size(64)));
static_assert(sizeof(Words) == 2 * sizeof(Halves));

[[gnu::always_inline]] inline Words look_up(Words table, Words index) {
  return (Words)_mm512_permutexvar_epi16((__m512i)index, (__m512i)table);
}

[[gnu::always_inline]] inline Halves table_of(float scale, float min) {
  F nibble;
  for (uint32_t i = 0; i < lanes; ++i) nibble[i] = static_cast<float>(i);
  return __builtin_convertvector(to_bf16(scale * nibble + min), Halves);
}

void q4_k_to_bf16(const std::byte* from, uint32_t cols, uint16_t* out) {
  for (uint32_t c = 0; c < cols; c += 256, from += 144, out += 256) {
    const Q4KScales scales = q4_k_scales(from);
    for (uint32_t pair = 0; pair < 4; ++pair) {
      const Halves low = table_of(scales.scale[2 * pair], scales.min[2 * pair]);
      const Halves high = table_of(scales.scale[2 * pair + 1], scales.min[2 * pair + 1]);
      Words table;
      __builtin_memcpy(&table, &low, sizeof(low));
      __builtin_memcpy(reinterpret_cast<std::byte*>(&table) + sizeof(low), &high, sizeof(high));
      typedef uint8_t Bytes __attribute__((vector_size(32)));
      const Words nibbles = __builtin_convertvector(load<Bytes>(from + 16 + 32 * pair), Words);
      store(out + 64 * pair, look_up(table, nibbles & 15));
      store(out + 64 * pair + 32, look_up(table, (nibbles >> 4) + 16));
    }
  }
}
#endif

void row_to_bf16(DType type, const std::byte* from, uint32_t cols, uint16_t* out) {
#ifdef SLUICE_ISA_avx512
  if (type == DType::q4_k) return q4_k_to_bf16(from, cols, out);
#endif
  alignas(64) float values[chunk];
  for (uint32_t c = 0; c < cols; c += chunk) {
    const uint32_t n = cols - c < chunk ? cols - c : chunk;
    dequantize(type, from + weight_bytes(type, c), n, values);
    for (uint32_t i = 0; i < n; i += lanes)
      store(out + c + i, __builtin_convertvector(to_bf16(load<F>(values + i)), Halves));
  }
}

// `lanes` rows from `row` on, of which n are of the tile.
[[gnu::always_inline]] inline void store_rows(const MatmulCall& call, uint32_t token, uint32_t row, uint32_t n,
                                              F value) {
  float* out = call.out + uint64_t{token} * call.out_stride + row;
  if (n >= lanes) {
    if (call.bias != nullptr) value += load<F>(call.bias + row);
    store(out, call.accumulate ? load<F>(out) + value : value);
    return;
  }
  for (uint32_t r = 0; r < n; ++r) store_output(call, token, row + r, value[r]);
}

}  // namespace

void pack_bf16(const QuantizeCall& call, Share share) {
  const uint32_t n_parts = call.cols / 32;
  const uint32_t n_groups = (call.n_rows + act_group - 1) / act_group;
  const Range range = range_of(n_groups * n_parts, share);
  for (uint32_t i = range.begin; i < range.end; ++i) {
    const uint32_t token = i / n_parts * act_group;
    pack_columns(call.x + uint64_t{token} * call.cols, call.cols, call.n_rows - token, i % n_parts * 32,
                 reinterpret_cast<uint16_t*>(call.out) + uint64_t{token} * call.cols);
  }
}

void bf16_panel(const WeightPanel& p) {
  const uint64_t bytes = weight_bytes(p.dtype, p.cols);
  auto* out = reinterpret_cast<uint16_t*>(p.out);
  for (uint32_t r = 0; r < p.rows; ++r, out += p.cols) {
    fetch_row_ahead(p, r, bytes);
    row_to_bf16(p.dtype, p.from + r * p.row_bytes, p.cols, out);
  }
}

void pack_panel(const WeightPanel& p) { p.format == ActFormat::wide8 ? wide8_panel(p) : bf16_panel(p); }

void store_tile(const MatmulCall& call, const OutputTile& tile) {
  for (uint32_t r = 0; r < tile.n_rows; r += lanes)
    for (uint32_t t = 0; t < tile.n_tokens; t += 4) {
      const float* at = tile.values + uint64_t{r} * act_group + t;
      const Quad q = load_quad({reinterpret_cast<const std::byte*>(at), act_group * 4}, 0);
      for (uint32_t i = 0; i < 4 && t + i < tile.n_tokens; ++i)
        store_rows(call, tile.token + t + i, tile.row + r, tile.n_rows - r, (F)q.v[i]);
    }
}

}  // namespace sluice::cpu::SLUICE_ISA
