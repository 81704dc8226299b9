// out[t][r] = sum_c weights[r][c] * x[t][c] in f32, weights of any type and any number of tokens: the
// reference path, and the path of weights that are not quantized.
//
// Bytes: the weights once for every 16 tokens, the activations from the caches. Flops: 2 * tokens * rows *
// cols. Bound by device memory for 1 to 4 tokens, then by the L1's answers to activation loads and by fma.
//
// A lane takes every 32nd group of 16 values and adds its products by fma in their order. More than 16 tokens
// are done 16 at a time by the same kernel, so here a row's bits are the same for any number of tokens.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/matvec.h"
#include "gpu/kernels/values.h"

namespace sluice::gpu {
namespace {

// Values 16g..16g+15 of a token's row, 0 beyond it.
SLUICE_DEVICE void load_activations(const MatmulCall& call, uint32_t token, uint32_t g, float* x) {
  const std::byte* row = call.x + uint64_t{least(token, call.n_tokens - 1)} * call.cols * sizeof(float);
  load_values(F32{}, row, g, call.cols, x);
}

template <class F, uint32_t N, uint32_t R>
SLUICE_KERNEL void matvec_f32_kernel(MatmulCall call, uint64_t row_bytes) {
  const uint32_t first_row = (block_x() * matvec_warps + warp()) * R, first_token = block_y() * N;
  float acc[R][N] = {};
  for (uint32_t g = lane(); 16 * g < call.cols; g += 32) {
    float w[R][16];
    SLUICE_UNROLL
    for (uint32_t r = 0; r < R; ++r)
      load_values(F{}, call.weights + least(first_row + r, call.rows - 1) * row_bytes, g, call.cols, w[r]);
    SLUICE_UNROLL
    for (uint32_t t = 0; t < N; ++t) {
      float x[16];
      load_activations(call, first_token + t, g, x);
      SLUICE_UNROLL
      for (uint32_t r = 0; r < R; ++r) SLUICE_UNROLL
      for (uint32_t i = 0; i < 16; ++i) acc[r][t] = fmaf(w[r][i], x[i], acc[r][t]);
    }
  }
  add_lanes_and_store<N, R>(call, first_token, first_row, acc);
}

template <class F, uint32_t N>
Status start(cudaStream_t stream, const MatmulCall& call) {
  constexpr uint32_t rows = 2;
  const LaunchShape shape{.grid_x = blocks_for(call.rows, matvec_warps * rows),
                          .grid_y = blocks_for(call.n_tokens, N),
                          .block_x = 32 * matvec_warps};
  return launch(stream, launch_info("matvec_f32", call), shape, matvec_f32_kernel<F, N, rows>, call,
                row_bytes(call.dtype, call.cols));
}

}  // namespace

Status matvec_f32(cudaStream_t stream, const MatmulCall& call) {
  return with_format("matvec", call.dtype, [&]<class F>(F) {
    if (call.n_tokens == 1) return start<F, 1>(stream, call);
    if (call.n_tokens <= 4) return start<F, 4>(stream, call);
    return start<F, 16>(stream, call);
  });
}

}  // namespace sluice::gpu
