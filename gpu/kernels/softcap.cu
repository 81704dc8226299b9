// x = cap * tanh(x / cap), in place.
//
// Bytes: 8 a value. Flops: about 8. Bound by memory; for one row of logits by the launch.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 256;

SLUICE_KERNEL void softcap_kernel(float* x, float cap, uint64_t n) {
  take_turn();
  const uint64_t i = uint64_t{block_x()} * threads + thread_x();
  if (i < n) x[i] = cap * tanhf(x[i] / cap);
}

}  // namespace

Status run(cudaStream_t stream, const SoftcapCall& call, const KernelContext&) {
  const uint64_t n = uint64_t{call.n_rows} * call.cols;
  if (n == 0) return {};
  const LaunchShape shape{.grid_x = blocks_for(n, threads), .block_x = threads, .early = true};
  return launch(stream, launch_info("softcap", call), shape, softcap_kernel, call.x, call.cap, n);
}

}  // namespace sluice::gpu
