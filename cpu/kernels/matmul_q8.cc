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

// Tokens whose sums are in registers together.
constexpr uint32_t tile_tokens = lanes == 16 ? 8 : lanes == 8 ? 4 : 1;
// At most so many meet a block as it is unpacked. Plain C++ has no registers for more than one.
constexpr uint32_t few_tokens = lanes >= 8 ? 8 : 1;
constexpr uint32_t pass_tokens = 128;  // at most so many share the unpacking of a panel
constexpr uint32_t chunk_blocks = 24;  // a multiple of every unit

// The q8 rows of some tokens.
struct Activations {
  const std::byte* rows;
  uint64_t row_bytes, scales_offset, sums_offset, totals_offset;
};

// A panel, and where a later one begins: its bytes are fetched ahead while this one is worked on, as the
// processor does not foresee `lanes` short streams.
struct Panel {
  Rows rows;
  const std::byte* later;
};

constexpr uint32_t ahead_bytes = 12 << 10;  // at least so far: memory answers later than a short panel is done

// Fetches what falls to block i of the unit at `at`. A unit's lines are spread over its blocks: many at
// once would keep loads waiting behind them.
template <class Format>
[[gnu::always_inline]] inline void fetch_ahead(const Panel& panel, uint64_t at, uint32_t i) {
  constexpr uint32_t bytes = lanes * Format::unit_bytes / Format::unit_blocks;
  const std::byte* from = panel.later + lanes * at + i * bytes;
  unroll<(bytes + 63) / 64>([&](auto line)
                                __attribute__((always_inline)) { __builtin_prefetch(from + 64 * line, 0, 2); });
  if constexpr (Format::scattered && lanes >= Format::unit_blocks) {
    // The rows' next unit, which has been fetched as far as the second cache.
    constexpr uint32_t rows = lanes / Format::unit_blocks, lines = (Format::unit_bytes + 63) / 64;
    const std::byte* row = opaque(panel.rows.base + at + Format::unit_bytes + i * rows * panel.rows.stride);
    unroll<rows * lines>([&](auto k) __attribute__((always_inline)) {
      __builtin_prefetch(row + k / lines * panel.rows.stride + k % lines * 64, 0, 3);
    });
  }
}

// Unpacks units [begin, end) and gives each block to visit(block, index from `begin` on).
template <class Format, class Visitor>
[[gnu::always_inline]] inline void unpack_units(const Panel& panel, uint32_t begin, uint32_t end,
                                                const Visitor& visit) {
  uint32_t u = begin;
  if constexpr (requires { Format::run_units; })
    for (; u + Format::run_units <= end; u += Format::run_units) {
      const uint64_t at = uint64_t{u} * Format::unit_bytes;
      Format::unpack_run(
          panel.rows, at, [&](const WeightBlock& block, uint32_t i) __attribute__((always_inline)) {
            fetch_ahead<Format>(panel, at, i);
            visit(block, (u - begin) * Format::unit_blocks + i);
          });
    }
  for (; u < end; ++u) {
    const uint64_t at = uint64_t{u} * Format::unit_bytes;
    Format::unpack(
        panel.rows, at, [&](const WeightBlock& block, uint32_t i) __attribute__((always_inline)) {
          fetch_ahead<Format>(panel, at, i);
          visit(block, (u - begin) * Format::unit_blocks + i);
        });
  }
}

// The activations of T tokens.
template <uint32_t T>
struct Tokens {
  const std::byte* row[T];
  uint64_t scales_offset, sums_offset, totals_offset;

  // n <= T of them from `first` on. Tokens beyond the last repeat it: they are computed and thrown away.
  [[gnu::always_inline]] Tokens(const Activations& x, uint32_t first, uint32_t n)
      : scales_offset(x.scales_offset), sums_offset(x.sums_offset), totals_offset(x.totals_offset) {
    for (uint32_t t = 0; t < T; ++t) row[t] = x.rows + uint64_t{first + (t < n ? t : n - 1)} * x.row_bytes;
  }
  [[gnu::always_inline]] const int8_t* values(uint32_t t, uint32_t block) const {
    return reinterpret_cast<const int8_t*>(row[t] + uint64_t{block} * 32);
  }
  [[gnu::always_inline]] F scale(uint32_t t, uint32_t block) const {
    return set(load<float>(row[t] + scales_offset + uint64_t{block} * 4));
  }
  [[gnu::always_inline]] const int16_t* sums(uint32_t t, uint32_t block) const {
    return reinterpret_cast<const int16_t*>(row[t] + sums_offset + uint64_t{block} * 4);
  }
  [[gnu::always_inline]] F total(uint32_t t, uint32_t block) const {
    return set(load<float>(row[t] + totals_offset + uint64_t{block} * 4));
  }
};

// The integer products of n vectors of a block, from `from` on, with tokens [t0, t0 + N).
template <Values V, uint32_t n, uint32_t from, uint32_t N, uint32_t T>
[[gnu::always_inline]] inline void add_products(const WeightBlock& block, const Tokens<T>& x, uint32_t index,
                                                uint32_t t0, Dot<V, n>* dots) {
  unroll<n>([&](auto k) __attribute__((always_inline)) {
    const I w = block.w[from + k];
    unroll<N>([&](auto t) __attribute__((always_inline)) {
      dots[t].template step<k>(w, x.values(t0 + t, index) + 4 * (from + k));
    });
  });
}

template <class Format, uint32_t N, uint32_t t0, uint32_t T>
[[gnu::always_inline]] inline void add_block_tile(const WeightBlock& block, const Tokens<T>& x, uint32_t index,
                                                  F* acc) {
  constexpr Values values = Format::values;
  constexpr int16_t offset = Format::offset;
  if constexpr (Format::two_scales) {
    Dot<values, 4> first[N], second[N];
    unroll<N>([&](auto t)
                  __attribute__((always_inline)) { first[t].start(weighted_sums(x.sums(t0 + t, index), offset, 0)); });
    add_products<values, 4, 0, N>(block, x, index, t0, first);
    unroll<N>([&](auto t)
                  __attribute__((always_inline)) { second[t].start(weighted_sums(x.sums(t0 + t, index), 0, offset)); });
    add_products<values, 4, 4, N>(block, x, index, t0, second);
    unroll<N>([&](auto t) __attribute__((always_inline)) {
      const F v = fma(block.scale, to_float(first[t].total()), block.second * to_float(second[t].total()));
      acc[t0 + t] = fma(x.scale(t0 + t, index), v, acc[t0 + t]);
    });
  } else {
    Dot<values, 8> dots[N];
    unroll<N>([&](auto t) __attribute__((always_inline)) {
      dots[t].start(offset != 0 ? weighted_sums(x.sums(t0 + t, index), offset, offset) : I{});
    });
    add_products<values, 8, 0, N>(block, x, index, t0, dots);
    unroll<N>([&](auto t) __attribute__((always_inline)) {
      const F product = to_float(dots[t].total());
      F v;
      if constexpr (Format::has_min) v = fma(block.scale, product, block.second * x.total(t0 + t, index));
      else v = block.scale * product;
      acc[t0 + t] = fma(x.scale(t0 + t, index), v, acc[t0 + t]);
    });
  }
}

// acc[t] += the product of a block of 32 columns with token t.
template <class Format, uint32_t T, uint32_t t0 = 0>
[[gnu::always_inline]] inline void add_block(const WeightBlock& block, const Tokens<T>& x, uint32_t index, F* acc) {
  constexpr uint32_t n = T - t0 < tile_tokens ? T - t0 : tile_tokens;
  add_block_tile<Format, n, t0>(block, x, index, acc);
  if constexpr (t0 + n < T) add_block<Format, T, t0 + n>(block, x, index, acc);
}

// acc[t] = products of a panel with n <= T tokens; each block is used as soon as it is unpacked, and the
// sums stay in registers. Not inlined, so that the registers are its own.
template <class Format, uint32_t T>
[[gnu::noinline]] void multiply_few(const Panel& panel, uint32_t units, const Activations& x, uint32_t n_tokens,
                                    F* acc) {
  const Tokens<T> tokens(x, 0, n_tokens);
  F total[T] = {};
  unpack_units<Format>(
      panel, 0, units, [&](const WeightBlock& block, uint32_t i) __attribute__((always_inline)) {
        add_block<Format, T>(block, tokens, i, total);
      });
  for (uint32_t t = 0; t < T; ++t) acc[t] = total[t];
}

template <class Format, uint32_t T>
[[gnu::noinline]] void add_chunk_tile(const WeightBlock* chunk, uint32_t first_block, uint32_t n_blocks,
                                      const Activations& x, uint32_t t0, F* acc) {
  const Tokens<T> tokens(x, t0, T);
  F total[T];
  for (uint32_t t = 0; t < T; ++t) total[t] = acc[t0 + t];
  for (uint32_t b = 0; b < n_blocks; ++b) add_block<Format, T>(chunk[b], tokens, first_block + b, total);
  for (uint32_t t = 0; t < T; ++t) acc[t0 + t] = total[t];
}

// A chunk of the panel is unpacked once, then met by one tile of tokens after the other.
template <class Format>
[[gnu::noinline]] void multiply_many(const Panel& panel, uint32_t units, const Activations& x, uint32_t n_tokens,
                                     F* acc) {
  constexpr uint32_t chunk_units = chunk_blocks / Format::unit_blocks;
  WeightBlock chunk[chunk_blocks];
  for (uint32_t t = 0; t < n_tokens; ++t) acc[t] = F{};
  for (uint32_t u = 0; u < units; u += chunk_units) {
    const uint32_t end = units - u < chunk_units ? units : u + chunk_units;
    unpack_units<Format>(
        panel, u, end, [&](const WeightBlock& block, uint32_t i) __attribute__((always_inline)) { chunk[i] = block; });
    const uint32_t first = u * Format::unit_blocks, n = (end - u) * Format::unit_blocks;
    uint32_t t = 0;
    for (; t + tile_tokens <= n_tokens; t += tile_tokens)
      add_chunk_tile<Format, tile_tokens>(chunk, first, n, x, t, acc);
    if constexpr (tile_tokens > 1) {
      for (; t + 2 <= n_tokens; t += 2) add_chunk_tile<Format, 2>(chunk, first, n, x, t, acc);
      if (t < n_tokens) add_chunk_tile<Format, 1>(chunk, first, n, x, t, acc);
    }
  }
}

template <class Format>
void multiply(const Panel& panel, uint32_t units, const Activations& x, uint32_t n_tokens, F* acc) {
  if (n_tokens == 1) return multiply_few<Format, 1>(panel, units, x, n_tokens, acc);
  if constexpr (few_tokens > 1) {
    if (n_tokens == 2) return multiply_few<Format, 2>(panel, units, x, n_tokens, acc);
    if (n_tokens <= 4) return multiply_few<Format, 4>(panel, units, x, n_tokens, acc);
    if (n_tokens <= 6) return multiply_few<Format, 6>(panel, units, x, n_tokens, acc);
    if (n_tokens <= few_tokens) return multiply_few<Format, few_tokens>(panel, units, x, n_tokens, acc);
  }
  multiply_many<Format>(panel, units, x, n_tokens, acc);
}

// Rows of the tile that a panel works on, of which lanes [skip, skip + count) are wanted.
struct Place {
  uint32_t first, stride_rows, skip, count;
};

// The panel for the rows from `row` on. At the tile's end it begins earlier than that, so that all lanes
// have a row; in a tile of fewer rows than lanes all have the same.
Place place_of(const MatmulCall& call, uint32_t row) {
  if (call.rows < lanes) return {row, 0, 0, 1};
  const uint32_t first = row + lanes <= call.rows ? row : call.rows - lanes;
  return {first, 1, row - first, lanes - (row - first)};
}

// Lane skip + i of acc[t] to row `row` + i of token `token` + t.
void store_panel(const MatmulCall& call, uint32_t token, uint32_t n_tokens, const Place& place, const F* acc) {
  const uint32_t row = place.first + place.skip;
  for (uint32_t t = 0; t < n_tokens; ++t) {
    if (place.count < lanes) {
      for (uint32_t i = 0; i < place.count; ++i) store_output(call, token + t, row + i, acc[t][place.skip + i]);
      continue;
    }
    float* out = call.out + uint64_t{token + t} * call.out_stride + row;
    F value = acc[t];
    if (call.bias != nullptr) value += load<F>(call.bias + row);
    store(out, call.accumulate ? load<F>(out) + value : value);
  }
}

// Rows from a panel to the one to fetch meanwhile.
uint32_t rows_ahead_for(uint64_t row_bytes) {
  const uint64_t panel_bytes = lanes * row_bytes;
  return lanes * static_cast<uint32_t>((ahead_bytes + panel_bytes - 1) / panel_bytes);
}

template <class Format>
void run(const MatmulCall& call, Range range) {
  const uint64_t row_bytes = uint64_t{call.cols / 32 / Format::unit_blocks} * Format::unit_bytes;
  const uint32_t units = call.cols / 32 / Format::unit_blocks;
  Activations x = {call.x, q8_row_bytes(call.cols), q8_scales_offset(call.cols), q8_sums_offset(call.cols),
                   q8_totals_offset(call.cols)};
  const uint32_t rows_ahead = rows_ahead_for(row_bytes);
  F acc[pass_tokens];
  for (uint32_t t = 0; t < call.n_tokens; t += pass_tokens, x.rows += pass_tokens * x.row_bytes) {
    const uint32_t n = call.n_tokens - t < pass_tokens ? call.n_tokens - t : pass_tokens;
    for (uint32_t row = range.begin; row < range.end;) {
      const Place place = place_of(call, row);
      const uint32_t later = row + rows_ahead;
      const Panel panel{{call.weights + place.first * row_bytes, place.stride_rows * row_bytes},
                        call.weights + (later < range.end ? later : row) * row_bytes};
      multiply<Format>(panel, units, x, n, acc);
      store_panel(call, t, n, place, acc);
      row += place.count;
    }
  }
}

}  // namespace

void matmul_q8(const MatmulCall& call, Share share) {
  const Range range = range_of(call.rows, share, matmul_row_unit);
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
