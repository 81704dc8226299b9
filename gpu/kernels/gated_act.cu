// out = activation(gate) * up.
//
// Bytes: 12 a value. Flops: about 8. Bound by memory; for few tokens by the launch.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 256;

SLUICE_DEVICE float silu(float x) { return x / (1.0f + expf(-x)); }

SLUICE_DEVICE float gelu_tanh(float x) {
  const float u = 0.7978845608f * fmaf(0.044715f * x * x, x, x);  // sqrt(2 / pi)
  return 0.5f * x * (1.0f + tanhf(u));
}

SLUICE_KERNEL void gated_act_kernel(GatedActCall call, uint64_t n) {
  const uint64_t i = uint64_t{block_x()} * threads + thread_x();
  if (i >= n) return;
  const float gate = call.gate[i];
  call.out[i] = (call.activation == Activation::silu ? silu(gate) : gelu_tanh(gate)) * call.up[i];
}

}  // namespace

Status run(cudaStream_t stream, const GatedActCall& call, const KernelContext&) {
  const uint64_t n = uint64_t{call.n_rows} * call.cols;
  if (n == 0) return {};
  const LaunchShape shape{.grid_x = blocks_for(n, threads), .block_x = threads};
  return launch(stream, launch_info("gated_act", call), shape, gated_act_kernel, call, n);
}

}  // namespace sluice::gpu
