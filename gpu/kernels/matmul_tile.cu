// out[t][r] = sum_c weights[r][c] * x[t][c] for many tokens: quantized weights, bf16 activations (the bf16
// part of q8 rows), on tensor cores.
//
// Bytes: the weights once for every 128 tokens and the activations (2 bytes a value) once for every 64 rows,
// both mostly from the L2. Flops: 2 * tokens * rows * cols. Bound by the tensor cores, of which it reaches a
// part: weights are unpacked again for every 128 tokens, about 5 operations a value.
//
// A block makes 128 tokens x 64 rows, 64 columns at a time. While the tensor cores work on one pair of tiles in
// shared memory the next is made: activations by asynchronous copies, weights dequantized to f32 and rounded
// to bf16. Each element adds its columns in their order, in f32, 16 at a time, so its bits do not depend on
// where its tile lies.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/product.h"
#include "gpu/kernels/q8_rows.h"
#include "gpu/kernels/values.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 256, tile_tokens = 128, tile_rows = 64, tile_cols = 64;
constexpr uint32_t pitch = tile_cols + 8;  // rows of a tile begin in different banks

struct Tiles {
  alignas(16) uint16_t x[tile_tokens][pitch];
  alignas(16) uint16_t w[tile_rows][pitch];
};

// Where a block and its warps work. A warp makes 32 x 32.
struct Place {
  uint32_t token, row;            // first of the block
  uint32_t warp_token, warp_row;  // first of the warp, within the block
};

// Eight values at a time, zeros beyond the columns. Tokens beyond the last one repeat it.
SLUICE_DEVICE void copy_activations(const MatmulCall& call, const Q8Layout& layout, const Place& place,
                                    uint32_t first_col, Tiles& tiles) {
  SLUICE_UNROLL
  for (uint32_t j = 0; j < tile_tokens * tile_cols / 8 / threads; ++j) {
    const uint32_t i = thread_x() + j * threads, t = i / (tile_cols / 8), c = i % (tile_cols / 8) * 8;
    const std::byte* row = call.x + least(place.token + t, call.n_tokens - 1) * layout.row_bytes + layout.bf16;
    if (first_col + c < call.cols) async_copy16(&tiles.x[t][c], row + 2 * uint64_t{first_col + c});
    else store16(&tiles.x[t][c], Vec16{});
  }
}

SLUICE_DEVICE uint32_t bf16_pair(const float* values) {
  return float_to_bf16_bits(values[0]) | static_cast<uint32_t>(float_to_bf16_bits(values[1])) << 16;
}

// A thread has a group of 16 values.
template <class F>
SLUICE_DEVICE void unpack_weights(const MatmulCall& call, uint64_t row_bytes, const Place& place, uint32_t first_col,
                                  Tiles& tiles) {
  static_assert(tile_rows * tile_cols / 16 == threads);
  const uint32_t r = thread_x() / (tile_cols / 16), c = thread_x() % (tile_cols / 16) * 16;
  float values[16] = {};
  if (first_col + c < call.cols)
    load_values(F{}, call.weights + least(place.row + r, call.rows - 1) * row_bytes, (first_col + c) / 16, call.cols,
                values);
  SLUICE_UNROLL
  for (uint32_t half = 0; half < 2; ++half) {
    Vec16 packed;
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 4; ++i) packed.words[i] = bf16_pair(values + 8 * half + 2 * i);
    store16(&tiles.w[r][c + 8 * half], packed);
  }
}

using Sums = float[2][4][4];  // 16 tokens, 8 rows, fragment

SLUICE_DEVICE void multiply(const Tiles& tiles, const Place& place, Sums& sums) {
  SLUICE_UNROLL
  for (uint32_t k = 0; k < tile_cols; k += 16) {
    uint32_t a[2][4], b[2][4];
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 2; ++i) {
      ldmatrix_x4(a[i], &tiles.x[place.warp_token + 16 * i + lane() % 16][k + lane() / 16 * 8]);
      ldmatrix_x4(b[i], &tiles.w[place.warp_row + 16 * i + lane() / 16 * 8 + lane() % 8][k + lane() / 8 % 2 * 8]);
    }
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 2; ++i) SLUICE_UNROLL
    for (uint32_t j = 0; j < 4; ++j) mma_m16n8k16_bf16(sums[i][j], a[i], b[j / 2] + j % 2 * 2);
  }
}

SLUICE_DEVICE void store_sums(const MatmulCall& call, const Place& place, const Sums& sums) {
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 2; ++i) SLUICE_UNROLL
  for (uint32_t j = 0; j < 4; ++j) SLUICE_UNROLL
  for (uint32_t e = 0; e < 4; ++e) {
    const uint32_t token = place.token + place.warp_token + 16 * i + lane() / 4 + e / 2 * 8;
    const uint32_t row = place.row + place.warp_row + 8 * j + lane() % 4 * 2 + e % 2;
    if (token < call.n_tokens && row < call.rows) store_product(call, token, row, sums[i][j][e]);
  }
}

template <class F>
SLUICE_KERNEL void matmul_tile_kernel(MatmulCall call, Q8Layout layout, uint64_t row_bytes) {
  SLUICE_DYNAMIC_SHARED(Tiles, tiles);
  const Place place{block_y() * tile_tokens, block_x() * tile_rows, warp() % 4 * 32, warp() / 4 * 32};
  Sums sums = {};
  copy_activations(call, layout, place, 0, tiles[0]);
  async_commit();
  unpack_weights<F>(call, row_bytes, place, 0, tiles[0]);
  uint32_t current = 0;
  for (uint32_t col = 0; col < call.cols; col += tile_cols, current ^= 1) {
    async_wait<0>();
    block_barrier();
    if (col + tile_cols < call.cols) {
      copy_activations(call, layout, place, col + tile_cols, tiles[current ^ 1]);
      async_commit();
      unpack_weights<F>(call, row_bytes, place, col + tile_cols, tiles[current ^ 1]);
    }
    multiply(tiles[current], place, sums);
  }
  store_sums(call, place, sums);
}

}  // namespace

Status matmul_tile(cudaStream_t stream, const MatmulCall& call) {
  return with_quantized("matmul", call.dtype, [&]<class F>(F) {
    const LaunchShape shape{.grid_x = blocks_for(call.rows, tile_rows),
                            .grid_y = blocks_for(call.n_tokens, tile_tokens),
                            .block_x = threads,
                            .shared_bytes = 2 * sizeof(Tiles)};
    return launch(stream, launch_info("matmul_tile", call), shape, matmul_tile_kernel<F>, call, q8_layout(call.cols),
                  row_bytes(call.dtype, call.cols));
  });
}

}  // namespace sluice::gpu
