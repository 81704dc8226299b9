// out (+)= weight * x / sqrt(mean(x^2) + eps), row by row.
//
// Bytes: 8 a value (12 to a residual), and the weight once. Flops: 4 a value. Bound by memory for many rows,
// by the latency of a block for few: a row is one block's.
//
// A thread adds the squares of every 512th value, a warp its lanes, the first warp the warps.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 512, warps = threads / 32;

// The sum over the block, in every thread.
SLUICE_DEVICE float block_sum(float value, float* partial) {
  value = warp_sum(value);
  if (lane() == 0) partial[warp()] = value;
  block_barrier();
  return warp_sum(lane() < warps ? partial[lane()] : 0.0f);
}

SLUICE_KERNEL void rms_norm_kernel(RmsNormCall call) {
  SLUICE_SHARED(float, partial, [warps]);
  const float* x = call.x + uint64_t{block_x()} * call.cols;
  float* out = call.out + uint64_t{block_x()} * call.cols;
  float squares = 0;
  for (uint32_t c = thread_x(); c < call.cols; c += threads) squares = fmaf(x[c], x[c], squares);
  squares = block_sum(squares, partial);
  const float scale = 1.0f / sqrtf(squares / static_cast<float>(call.cols) + call.eps);
  for (uint32_t c = thread_x(); c < call.cols; c += threads) {
    float value = x[c] * scale;
    if (call.weight != nullptr) value *= call.weight[c];
    out[c] = call.accumulate ? out[c] + value : value;
  }
}

}  // namespace

Status run(cudaStream_t stream, const RmsNormCall& call, const KernelContext&) {
  if (call.n_rows == 0 || call.cols == 0) return {};
  const LaunchShape shape{.grid_x = call.n_rows, .block_x = threads};
  return launch(stream, launch_info("rms_norm", call), shape, rms_norm_kernel, call);
}

}  // namespace sluice::gpu
