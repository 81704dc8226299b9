// Products of 8-bit integers in blocks of 256 columns (ActFormat::wide8; cpu/dense_product.h puts them together).
//
// Integers, their sums and the order of what is rounded are the same on all instruction sets, and so are the bits.
//
// Weights are quantized a second time, by at most a 254th of the largest in their block; of Q4_K and Q6_K, for which
// this is used, of the largest that their scales allow. Of Q4_K all sixteen values that a sub-block may have are
// quantized, and its weights looked up.
#include "cpu/kernels/wide8.h"

#include "cpu/kernels/declare.h"
#include "cpu/kernels/dense.h"
#include "cpu/kernels/dequant.h"
#include "cpu/kernels/scaling.h"
#include "cpu/kernels/simd.h"

namespace sluice::cpu::SLUICE_ISA {
namespace {

[[gnu::always_inline]] inline I magnitude(F x) { return (I)x & 0x7fffffff; }
[[gnu::always_inline]] inline I larger(I a, I b) { return a > b ? a : b; }

// Of non-negative lanes.
[[gnu::always_inline]] inline uint32_t largest(I x) {
  int32_t most = 0;
  for (uint32_t i = 0; i < lanes; ++i) most = x[i] > most ? x[i] : most;
  return static_cast<uint32_t>(most);
}

// As the nearest integers.
[[gnu::always_inline]] inline void store_nearest(void* p, F x) { store_low_bytes(p, (I)(x + nearest_magic)); }

// A block of one row as integers, filled up with zeros.
struct Row {
  alignas(64) int8_t q[wide_block];
  float scale;
};

void quantize_row(const float* x, uint32_t cols, Row& row) {
  I most{};
  for (uint32_t c = 0; c < cols; c += lanes) most = larger(most, magnitude(load<F>(x + c)));
  const Scaling s = scaling_of(largest(most));
  row.scale = s.scale;
  if (s.factor == 0.0f) {
    __builtin_memset(row.q, 0, sizeof(row.q));
    return;
  }
  for (uint32_t c = 0; c < cols; c += lanes) store_nearest(row.q + c, load<F>(x + c) * s.factor);
  __builtin_memset(row.q + cols, 0, wide_block - cols);
}

// --- activations

// Sixteen rows, each four bytes of them together, to the pieces of a strip.
void turn_strip(const Row* rows, uint32_t steps, std::byte* strip) {
  for (uint32_t step = 0; step < steps; ++step)
    for (uint32_t quarter = 0; quarter < 4; ++quarter)
      for (uint32_t r = 0; r < piece_rows; r += lanes) {
        const auto* from = reinterpret_cast<const std::byte*>(rows[r].q + step * wide_step + quarter * 16);
        const Quad quad = load_quad({from, sizeof(Row)}, 0);
        std::byte* out = strip + uint64_t{step} * step_bytes + uint64_t{quarter} * 4 * wide_step + uint64_t{r} * 4;
        unroll<4>([&](auto k) __attribute__((always_inline)) { store(out + k * wide_step, quad.v[k]); });
      }
}

// A block of a group whose first n tokens are there, `stride` floats apart.
void pack_block(const float* x, uint64_t stride, uint32_t n, uint32_t cols, std::byte* out) {
  const uint32_t steps = steps_of(cols);
  float* scales = scales_of(out, steps);
  Row rows[piece_rows];
  for (uint32_t first = 0; first < act_group; first += piece_rows) {
    for (uint32_t r = 0; r < piece_rows; ++r) {
      const uint32_t token = first + r;
      if (token < n) quantize_row(x + token * stride, cols, rows[r]);
      else rows[r] = {};
      scales[token] = rows[r].scale;
    }
    turn_strip(rows, steps, out + uint64_t{first / piece_rows} * piece_bytes);
  }
}

// --- weights

// Where a row of a block goes.
struct Place {
  std::byte* values;  // of the first step
  float* scale;
};

[[gnu::always_inline]] inline Place place_of(std::byte* block, uint32_t steps, uint32_t row) {
  return {block + row / piece_rows * piece_bytes + row % piece_rows * wide_step, scales_of(block, steps) + row};
}

// The sixteen values of a sub-block of Q4_K, and 64 weights: the low nibbles of 32 bytes by the one table, the high
// ones by the other.
#ifdef SLUICE_ISA_avx512
using Table = __m256i;  // twice

[[gnu::always_inline]] inline Table table_of(float scale, float min) {
  F nibble;
  for (uint32_t i = 0; i < 16; ++i) nibble[i] = static_cast<float>(i);
  const I values = (I)(fma(set(scale), nibble, set(min)) + nearest_magic);
  return _mm256_broadcastsi128_si256(_mm512_cvtepi32_epi8((__m512i)values));
}

[[gnu::always_inline]] inline void look_up(Table low, Table high, const std::byte* nibbles, std::byte* out) {
  const __m256i both = load<__m256i>(nibbles), low_bits = _mm256_set1_epi8(15);
  store(out, _mm256_shuffle_epi8(low, _mm256_and_si256(both, low_bits)));
  store(out + 32, _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16(both, 4), low_bits)));
}
#else
struct Table {
  int8_t q[16];
};

[[gnu::always_inline]] inline Table table_of(float scale, float min) {
  Table table;
  for (uint32_t i = 0; i < 16; i += lanes) {
    F nibble;
    for (uint32_t k = 0; k < lanes; ++k) nibble[k] = static_cast<float>(i + k);
    store_nearest(table.q + i, fma(set(scale), nibble, set(min)));
  }
  return table;
}

[[gnu::always_inline]] inline void look_up(const Table& low, const Table& high, const std::byte* nibbles,
                                           std::byte* out) {
  for (uint32_t i = 0; i < 32; ++i) {
    const auto both = load<uint8_t>(nibbles + i);
    store(out + i, low.q[both & 15]);
    store(out + 32 + i, high.q[both >> 4]);
  }
}
#endif

void q4_k_to_wide8(const std::byte* from, const Place& out) {
  const Q4KScales scales = q4_k_scales(from);
  uint32_t most = 0;  // by the ends of what each sub-block may hold
  for (uint32_t s = 0; s < 8; ++s) {
    const uint32_t first = __builtin_bit_cast(uint32_t, scales.min[s]) & 0x7fffffffu;
    const uint32_t last = __builtin_bit_cast(uint32_t, scales.scale[s] * 15.0f + scales.min[s]) & 0x7fffffffu;
    most = first > most ? first : most;
    most = last > most ? last : most;
  }
  const Scaling s = scaling_of(most);
  *out.scale = s.scale;
  for (uint32_t pair = 0; pair < 4; ++pair) {
    std::byte* to = out.values + uint64_t{pair} * step_bytes;
    if (s.factor == 0.0f) {
      __builtin_memset(to, 0, wide_step);
      continue;
    }
    const uint32_t i = 2 * pair;
    const Table low = table_of(scales.scale[i] * s.factor, scales.min[i] * s.factor);
    const Table high = table_of(scales.scale[i + 1] * s.factor, scales.min[i + 1] * s.factor);
    look_up(low, high, from + 16 + uint64_t{32} * pair, to);
  }
}

// The 6-bit values of a block of Q6_K, in the order of their columns.
[[gnu::always_inline]] inline void unpack_q6_k(const std::byte* from, uint8_t* q) {
  for (uint32_t half = 0; half < 2; ++half, q += 128)
    for (uint32_t i = 0; i < 32; ++i) {
      const auto first = load<uint8_t>(from + 64 * half + i), second = load<uint8_t>(from + 64 * half + 32 + i);
      const auto high = load<uint8_t>(from + 128 + 32 * half + i);
      q[i] = static_cast<uint8_t>((first & 15) | (high & 3) << 4);
      q[32 + i] = static_cast<uint8_t>((second & 15) | (high >> 2 & 3) << 4);
      q[64 + i] = static_cast<uint8_t>(first >> 4 | (high >> 4 & 3) << 4);
      q[96 + i] = static_cast<uint8_t>(second >> 4 | (high >> 6) << 4);
    }
}

void q6_k_to_wide8(const std::byte* from, const Place& out) {
  const float d = sluice::half_to_float(load<uint16_t>(from + 208));
  int32_t most = 0;
  for (uint32_t i = 0; i < 16; ++i) {
    const int32_t scale = load<int8_t>(from + 192 + i), size = scale < 0 ? -scale : scale;
    most = size > most ? size : most;
  }
  const float largest = d * static_cast<float>(32 * most);
  const Scaling s = scaling_of(__builtin_bit_cast(uint32_t, largest) & 0x7fffffffu);
  *out.scale = s.scale;
  alignas(64) uint8_t q[wide_block];
  unpack_q6_k(from, q);
  for (uint32_t i = 0; i < 16; ++i) {
    const float scale = s.factor == 0.0f ? 0.0f : d * static_cast<float>(load<int8_t>(from + 192 + i)) * s.factor;
    std::byte* to = out.values + uint64_t{i / 4} * step_bytes + uint64_t{i % 4} * 16;
    for (uint32_t c = 0; c < 16; c += lanes) {
      const I value = load_bytes(reinterpret_cast<const std::byte*>(q) + 16 * i + c) - 32;
      store_nearest(to + c, to_float(value) * scale);
    }
  }
}

void row_to_wide8(DType type, const std::byte* from, uint32_t cols, const Place& out) {
  if (type == DType::q4_k) return q4_k_to_wide8(from, out);
  if (type == DType::q6_k) return q6_k_to_wide8(from, out);
  alignas(64) float values[wide_block];
  Row row;
  dequantize(type, from, cols, values);
  quantize_row(values, cols, row);
  *out.scale = row.scale;
  for (uint32_t c = 0; c < cols; c += wide_step)
    __builtin_memcpy(out.values + uint64_t{c / wide_step} * step_bytes, row.q + c, wide_step);
}

// --- products

// Sums of a block, exact: row r's of the group's tokens.
typedef int32_t Sums[act_group];

#ifdef SLUICE_ISA_avx512
// vpdpbusd takes unsigned activations: 128 more, for which as much of the row's sum is taken off before.
constexpr uint32_t rows_at_once = 6;

[[gnu::always_inline]] inline int32_t sum_of_row(const std::byte* a, uint32_t steps) {
  __m512i sum = _mm512_setzero_si512();
  for (uint32_t step = 0; step < steps; ++step)
    sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), load<__m512i>(a + step * step_bytes));
  int32_t total = 0;
  for (uint32_t i = 0; i < lanes; ++i) total += ((I)sum)[i];
  return total;
}

// Not inlined, so that the registers are its own.
template <uint32_t n>
[[gnu::noinline]] void add_rows(const std::byte* a, const std::byte* b, uint32_t steps, Sums* sums) {
  const __m512i moved = _mm512_set1_epi8(-128);
  __m512i acc[n][4];
  unroll<n>([&](auto r) __attribute__((always_inline)) {
    const __m512i start = _mm512_set1_epi32(-128 * sum_of_row(a + r * wide_step, steps));
    unroll<4>([&](auto t) __attribute__((always_inline)) { acc[r][t] = start; });
  });
  for (uint32_t step = 0; step < steps; ++step, a += step_bytes, b += step_bytes)
    for (uint32_t k = 0; k < wide_step; k += 4) {
      __m512i x[4];
      unroll<4>([&](auto t) __attribute__((always_inline)) {
        x[t] = _mm512_xor_si512(load<__m512i>(b + t * piece_bytes + uint64_t{k} * piece_rows), moved);
      });
      unroll<n>([&](auto r) __attribute__((always_inline)) {
        const __m512i w = _mm512_set1_epi32(load<int32_t>(a + r * wide_step + k));
        unroll<4>([&](auto t) __attribute__((always_inline)) { acc[r][t] = _mm512_dpbusd_epi32(acc[r][t], x[t], w); });
      });
    }
  unroll<n>([&](auto r) __attribute__((always_inline)) {
    unroll<4>([&](auto t) __attribute__((always_inline)) { store(sums[r] + 16 * t, acc[r][t]); });
  });
}

void multiply_block(const std::byte* a, const std::byte* b, uint32_t steps, Sums* sums) {
  for (uint32_t piece = 0; piece < act_group; piece += piece_rows, a += piece_bytes) {
    add_rows<rows_at_once>(a, b, steps, sums + piece);
    add_rows<rows_at_once>(a + uint64_t{6} * wide_step, b, steps, sums + piece + 6);
    add_rows<4>(a + uint64_t{12} * wide_step, b, steps, sums + piece + 12);
  }
}
#else
constexpr uint32_t rows_at_once = 4;

// Of some rows with `lanes` tokens.
[[gnu::noinline]] void add_rows(const std::byte* a, const std::byte* b, uint32_t steps, Sums* sums, uint32_t token) {
  Dot<Values::signed8, 1> dots[rows_at_once];
  for (uint32_t step = 0; step < steps; ++step, a += step_bytes, b += step_bytes)
    for (uint32_t k = 0; k < wide_step; k += 4) {
      const I x = from_signed(load<I>(b + uint64_t{k} * piece_rows));
      unroll<rows_at_once>([&](auto r) __attribute__((always_inline)) {
        dots[r].template step<0>(x, reinterpret_cast<const int8_t*>(a + r * wide_step + k));
      });
    }
  unroll<rows_at_once>([&](auto r) __attribute__((always_inline)) { store(sums[r] + token, dots[r].total()); });
}

void multiply_block(const std::byte* a, const std::byte* b, uint32_t steps, Sums* sums) {
  static_assert(signed_offset == 0);
  for (uint32_t r = 0; r < act_group; r += rows_at_once)
    for (uint32_t t = 0; t < act_group; t += lanes)
      add_rows(a + uint64_t{r} * wide_step, b + t / piece_rows * piece_bytes + t % piece_rows * 4, steps, sums + r, t);
}
#endif

}  // namespace

void pack_wide8(const QuantizeCall& call, Share share) {
  const uint32_t n_blocks = (call.cols + wide_block - 1) / wide_block;
  const uint32_t n_groups = (call.n_rows + act_group - 1) / act_group;
  const Range range = range_of(n_groups * n_blocks, share);
  for (uint32_t i = range.begin; i < range.end; ++i) {
    const uint32_t group = i / n_blocks, token = group * act_group, col = i % n_blocks * wide_block;
    const uint32_t cols = block_cols(call.cols, col);
    pack_block(call.x + uint64_t{token} * call.cols + col, call.cols, call.n_rows - token, cols,
               call.out + group * group_bytes(ActFormat::wide8, call.cols) + group_bytes(ActFormat::wide8, col));
  }
}

void wide8_panel(const WeightPanel& p) {
  const uint64_t bytes = weight_bytes(p.dtype, p.cols), group = group_bytes(ActFormat::wide8, p.cols);
  for (uint32_t r = 0; r < p.rows; ++r) {
    fetch_row_ahead(p, r, bytes);
    std::byte* block = p.out + r / act_group * group;
    const std::byte* from = p.from + r * p.row_bytes;
    for (uint32_t col = 0; col < p.cols; col += wide_block) {
      const uint32_t cols = block_cols(p.cols, col);
      const Place place = place_of(block, steps_of(cols), r % act_group);
      row_to_wide8(p.dtype, from + weight_bytes(p.dtype, col), cols, place);
      block += wide_block_bytes(cols);
    }
  }
}

void multiply_wide8(const TileCall& call) {
  alignas(64) Sums sums[act_group];
  const std::byte *a = call.a, *b = call.b;
  for (uint32_t col = 0; col < call.cols; col += wide_block) {
    const uint32_t cols = block_cols(call.cols, col);
    const uint32_t steps = steps_of(cols);
    multiply_block(a, b, steps, sums);
    const float *rows = scales_of(a, steps), *tokens = scales_of(b, steps);
    for (uint32_t r = 0; r < act_group; ++r)
      for (uint32_t t = 0; t < act_group; t += lanes) {
        float* c = call.c + uint64_t{r} * act_group + t;
        const F before = call.accumulate || col > 0 ? load<F>(c) : F{};
        store(c, fma(to_float(load<I>(sums[r] + t)), rows[r] * load<F>(tokens + t), before));
      }
    a += wide_block_bytes(cols);
    b += wide_block_bytes(cols);
  }
}

}  // namespace sluice::cpu::SLUICE_ISA
