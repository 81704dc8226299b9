// Products of quantized weights with q8 activations.
//
// The bits of out[t][r]: for each block of 32 columns, in order, acc = fma(d, v, acc), d being the scale
// of the activations and v the block's product in units of d: the sum of integer products, exact, times
// the scale of the weights (and with the minimum, or the second scale, by one fma). All instruction sets
// and all numbers of rows, tokens and threads do the same.
#include "cpu/kernels/matmul.h"
#include "cpu/kernels/matmul_formats.h"

namespace sluice::cpu::SLUICE_ISA {
namespace {

constexpr uint32_t group_tokens = 8;  // their activations for a chunk fit the L1 cache
constexpr uint32_t pass_tokens = 64;  // at most so many share the unpacking of a panel
constexpr uint32_t chunk_blocks = 16;

// The q8 rows of some tokens.
struct Activations {
  const std::byte* rows;
  uint64_t row_bytes, scales_offset, sums_offset;

  [[gnu::always_inline]] const int8_t* values(uint32_t t, uint32_t block) const {
    return reinterpret_cast<const int8_t*>(rows + t * row_bytes + block * 32u);
  }
  [[gnu::always_inline]] float scale(uint32_t t, uint32_t block) const {
    return load<float>(rows + t * row_bytes + scales_offset + block * 4u);
  }
  [[gnu::always_inline]] const int16_t* sums(uint32_t t, uint32_t block) const {
    return reinterpret_cast<const int16_t*>(rows + t * row_bytes + sums_offset + block * 4u);
  }
};

// A panel, and where the next one begins: its bytes are fetched ahead while this one is worked on, as the
// processor does not foresee `lanes` short streams.
struct Panel {
  Rows rows;
  const std::byte* next;
};

template <class Format, class Visitor>
[[gnu::always_inline]] inline void unpack(const Panel& panel, uint32_t unit, const Visitor& visit) {
  const uint64_t at = uint64_t{unit} * Format::unit_bytes;
  for (uint32_t i = 0; i < lanes * Format::unit_bytes; i += 64) __builtin_prefetch(panel.next + lanes * at + i, 0, 2);
  Format::unpack(panel.rows, at, visit);
}

template <class Format>
[[gnu::always_inline]] inline F block_product(const WeightBlock& block, const int8_t* a, const int16_t* sums) {
  constexpr Values values = Format::values;
  constexpr int16_t offset = Format::offset;
  if constexpr (Format::two_scales) {
    const I first = dot<values, 4>(block.w, a, weighted_sums(sums, offset, 0));
    const I second = dot<values, 4>(block.w + 4, a + 16, weighted_sums(sums, 0, offset));
    return fma(block.scale, to_float(first), block.second * to_float(second));
  } else if constexpr (Format::has_min) {
    const I product = dot<values, 8>(block.w, a, I{});
    return fma(block.scale, to_float(product), block.second * to_float(weighted_sums(sums, 1, 1)));
  } else {
    const I start = offset != 0 ? weighted_sums(sums, offset, offset) : I{};
    return block.scale * to_float(dot<values, 8>(block.w, a, start));
  }
}

template <class Format>
[[gnu::always_inline]] inline void add_block(const WeightBlock& block, const Activations& x, uint32_t t, uint32_t index,
                                             F& acc) {
  acc = fma(set(x.scale(t, index)), block_product<Format>(block, x.values(t, index), x.sums(t, index)), acc);
}

// acc[t] = products of a panel with one token; the accumulator stays in a register.
template <class Format>
void multiply_one(const Panel& panel, uint32_t units, const Activations& x, F* acc) {
  F total{};
  for (uint32_t u = 0; u < units; ++u)
    unpack<Format>(
        panel, u, [&](const WeightBlock& block, uint32_t i) __attribute__((always_inline)) {
          add_block<Format>(block, x, 0, u * Format::unit_blocks + i, total);
        });
  acc[0] = total;
}

// A chunk of the panel is unpacked once, then met by one group of tokens after the other.
template <class Format>
void multiply_many(const Panel& panel, uint32_t units, const Activations& x, uint32_t n_tokens, F* acc) {
  constexpr uint32_t chunk_units = chunk_blocks / Format::unit_blocks;
  WeightBlock chunk[chunk_blocks];
  for (uint32_t t = 0; t < n_tokens; ++t) acc[t] = F{};
  for (uint32_t u0 = 0; u0 < units; u0 += chunk_units) {
    const uint32_t n_units = units - u0 < chunk_units ? units - u0 : chunk_units;
    for (uint32_t u = 0; u < n_units; ++u)
      unpack<Format>(
          panel, u0 + u, [&](const WeightBlock& block, uint32_t i) __attribute__((always_inline)) {
            chunk[u * Format::unit_blocks + i] = block;
          });
    const uint32_t n_blocks = n_units * Format::unit_blocks, first = u0 * Format::unit_blocks;
    for (uint32_t t0 = 0; t0 < n_tokens; t0 += group_tokens) {
      const uint32_t t1 = t0 + group_tokens < n_tokens ? t0 + group_tokens : n_tokens;
      for (uint32_t b = 0; b < n_blocks; ++b) {
        const WeightBlock block = chunk[b];
        for (uint32_t t = t0; t < t1; ++t) add_block<Format>(block, x, t, first + b, acc[t]);
      }
    }
  }
}

// Lane i of acc[t] to row `row` + i of token `token` + t.
void store_panel(const MatmulCall& call, uint32_t token, uint32_t n_tokens, uint32_t row, const F* acc) {
  const uint32_t n_rows = call.rows - row < lanes ? call.rows - row : lanes;
  for (uint32_t t = 0; t < n_tokens; ++t) {
    if (n_rows < lanes) {
      for (uint32_t i = 0; i < n_rows; ++i) store_output(call, token + t, row + i, acc[t][i]);
      continue;
    }
    float* out = call.out + uint64_t{token + t} * call.out_stride + row;
    F value = acc[t];
    if (call.bias != nullptr) value += load<F>(call.bias + row);
    store(out, call.accumulate ? load<F>(out) + value : value);
  }
}

Panel panel_at(const MatmulCall& call, uint32_t row, uint64_t row_bytes, uint32_t end) {
  Panel panel;
  for (uint32_t i = 0; i < lanes; ++i)
    panel.rows.row[i] = call.weights + (row + i < call.rows ? row + i : call.rows - 1) * row_bytes;
  panel.next = call.weights + (row + lanes < end ? row + lanes : row) * row_bytes;
  return panel;
}

template <class Format>
void run(const MatmulCall& call, Range range) {
  const uint64_t row_bytes = uint64_t{call.cols / 32 / Format::unit_blocks} * Format::unit_bytes;
  const uint32_t units = call.cols / 32 / Format::unit_blocks;
  Activations x = {call.x, q8_row_bytes(call.cols), q8_scales_offset(call.cols), q8_sums_offset(call.cols)};
  F acc[pass_tokens];
  for (uint32_t t = 0; t < call.n_tokens; t += pass_tokens, x.rows += pass_tokens * x.row_bytes) {
    const uint32_t n = call.n_tokens - t < pass_tokens ? call.n_tokens - t : pass_tokens;
    for (uint32_t row = range.begin; row < range.end; row += lanes) {
      const Panel panel = panel_at(call, row, row_bytes, range.end);
      if (n == 1) multiply_one<Format>(panel, units, x, acc);
      else multiply_many<Format>(panel, units, x, n, acc);
      store_panel(call, t, n, row, acc);
    }
  }
}

}  // namespace

void matmul_q8(const MatmulCall& call, Share share) {
  const Range range = range_of(call.rows, share, row_unit);
  switch (call.dtype) {
    case DType::q4_0: return run<FormatQ4_0>(call, range);
    case DType::q4_1: return run<FormatQ4_1>(call, range);
    case DType::q5_0: return run<FormatQ5_0>(call, range);
    case DType::q5_1: return run<FormatQ5_1>(call, range);
    case DType::q8_0: return run<FormatQ8_0>(call, range);
    case DType::q4_k: return run<FormatQ4_K>(call, range);
    case DType::q6_k: return run<FormatQ6_K>(call, range);
    default: __builtin_trap();  // plain weights meet f32 activations
  }
}

}  // namespace sluice::cpu::SLUICE_ISA
