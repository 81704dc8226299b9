// Products of weights, dequantized to f32, with f32 activations.
//
// The bits of out[t][r]: 16 sums by column modulo 16, each an fma for every 16 columns in order (columns
// beyond the last count as 0 * 0), then added up as sum(Wide) does. All instruction sets and all numbers
// of rows, tokens and threads do the same.
#include "cpu/kernels/dequant.h"
#include "cpu/kernels/matmul.h"
#include "cpu/kernels/simd.h"

namespace sluice::cpu::SLUICE_ISA {
namespace {

constexpr uint32_t group_rows = 8;    // dequantized together
constexpr uint32_t pass_tokens = 32;  // at most so many share that
constexpr uint32_t chunk_cols = 256;  // a multiple of every block

constexpr bool many_registers = lanes == wide;
constexpr uint32_t tile_rows = many_registers ? 4 : 2;
constexpr uint32_t tile_tokens = many_registers ? 4 : 2;

// A chunk of columns of some rows of weights, and the sums so far.
struct Group {
  alignas(64) float weights[group_rows][chunk_cols];
  Wide acc[pass_tokens][group_rows];
};

// Adds the products of rows r.. and tokens t.. over `cols` columns; x is token t's row at the chunk.
template <uint32_t n_tokens>
[[gnu::always_inline]] inline void add_tile(Group& group, uint32_t r, uint32_t t, const float* x, uint64_t stride,
                                            uint32_t cols) {
  Wide acc[n_tokens * tile_rows];
  unroll<n_tokens * tile_rows>([&](auto i) __attribute__((always_inline)) {
    acc[i] = group.acc[t + i / tile_rows][r + i % tile_rows];
  });
  const auto step = [&](uint32_t c, auto load_x) __attribute__((always_inline)) {
    Wide w[tile_rows];
    unroll<tile_rows>([&](auto j) __attribute__((always_inline)) { w[j] = load_wide(group.weights[r + j] + c); });
    unroll<n_tokens>([&](auto i) __attribute__((always_inline)) {
      const Wide values = load_x(x + i * stride + c);
      unroll<tile_rows>([&](auto j) __attribute__((always_inline)) { fma_into(acc[i * tile_rows + j], w[j], values); });
    });
  };
  uint32_t c = 0;
  for (; c + wide <= cols; c += wide)
    step(
        c, [](const float* p) __attribute__((always_inline)) { return load_wide(p); });
  if (c < cols)
    step(
        c, [&](const float* p) __attribute__((always_inline)) { return load_wide(p, cols - c); });
  unroll<n_tokens * tile_rows>([&](auto i) __attribute__((always_inline)) {
    group.acc[t + i / tile_rows][r + i % tile_rows] = acc[i];
  });
}

void add_chunk(Group& group, const float* x, uint64_t stride, uint32_t n_tokens, uint32_t cols) {
  uint32_t t = 0;
  for (; t + tile_tokens <= n_tokens; t += tile_tokens)
    for (uint32_t r = 0; r < group_rows; r += tile_rows)
      add_tile<tile_tokens>(group, r, t, x + t * stride, stride, cols);
  for (; t < n_tokens; ++t)
    for (uint32_t r = 0; r < group_rows; r += tile_rows) add_tile<1>(group, r, t, x + t * stride, stride, cols);
}

// Rows beyond the tile are left as they are: their sums are thrown away. What the next group will read
// is fetched ahead.
void load_weights(const MatmulCall& call, uint32_t row, uint32_t col, uint32_t cols, Group& group) {
  const uint64_t row_bytes = weight_bytes(call.dtype, call.cols);
  const uint64_t bytes = weight_bytes(call.dtype, cols);
  const std::byte* from = call.weights + row * row_bytes + weight_bytes(call.dtype, col);
  for (uint32_t i = 0; i < group_rows && row + i < call.rows; ++i, from += row_bytes) {
    if (row + i + group_rows < call.rows)
      for (uint64_t b = 0; b < bytes; b += 64) __builtin_prefetch(from + group_rows * row_bytes + b, 0, 2);
    dequantize(call.dtype, from, cols, group.weights[i]);
    for (uint32_t c = cols; c % wide != 0; ++c) group.weights[i][c] = 0;
  }
}

void multiply_group(const MatmulCall& call, uint32_t row, uint32_t token, uint32_t n_tokens, Group& group) {
  const auto* x = reinterpret_cast<const float*>(call.x) + uint64_t{token} * call.cols;
  for (uint32_t t = 0; t < n_tokens; ++t)
    for (Wide& acc : group.acc[t]) acc = Wide{};
  for (uint32_t c = 0; c < call.cols; c += chunk_cols) {
    const uint32_t cols = call.cols - c < chunk_cols ? call.cols - c : chunk_cols;
    load_weights(call, row, c, cols, group);
    add_chunk(group, x + c, call.cols, n_tokens, cols);
  }
  for (uint32_t t = 0; t < n_tokens; ++t)
    for (uint32_t i = 0; i < group_rows && row + i < call.rows; ++i)
      store_output(call, token + t, row + i, sum(group.acc[t][i]));
}

}  // namespace

void matmul_f32(const MatmulCall& call, Share share) {
  const Range range = range_of(call.rows, share, matmul_row_unit);
  Group group;
  __builtin_memset(&group, 0, sizeof(group));
  for (uint32_t t = 0; t < call.n_tokens; t += pass_tokens) {
    const uint32_t n = call.n_tokens - t < pass_tokens ? call.n_tokens - t : pass_tokens;
    for (uint32_t row = range.begin; row < range.end; row += group_rows) multiply_group(call, row, t, n, group);
  }
}

}  // namespace sluice::cpu::SLUICE_ISA
