// out[t] (+)= sum over slots of weight * part: the results of a token's experts, in slot order.
//
// Bytes: 4 * (k + 1) a value (+ 4 to a residual). Flops: 2 * k a value. Bound by memory: the link to the
// host for parts that lie there.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 256;

SLUICE_KERNEL void merge_kernel(MergeCall call) {
  const uint32_t c = block_x() * threads + thread_x();
  if (c >= call.cols) return;
  for (uint32_t token = block_y(); token < call.n_tokens; token += grid_y()) {
    const float* const* parts = call.parts + uint64_t{token} * call.k;
    const float* weights = call.weights + uint64_t{token} * call.k;
    float* out = call.out + uint64_t{token} * call.cols + c;
    float sum = call.accumulate ? *out : 0.0f;
    for (uint32_t s = 0; s < call.k; ++s) sum = fmaf(weights[s], parts[s][c], sum);
    *out = sum;
  }
}

}  // namespace

Status run(cudaStream_t stream, const MergeCall& call, const KernelContext&) {
  if (call.n_tokens == 0 || call.cols == 0) return {};
  const LaunchShape shape{.grid_x = blocks_for(call.cols, threads),
                          .grid_y = call.n_tokens < most_blocks_y ? call.n_tokens : most_blocks_y,
                          .block_x = threads};
  return launch(stream, launch_info("merge", call), shape, merge_kernel, call);
}

}  // namespace sluice::gpu
