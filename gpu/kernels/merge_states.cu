// out = (O_a + O_b) / (l_a + l_b): attention over some pages put together with that over the others.
//
// Bytes: 12 a value, and the m and l of its row. Flops: 4 a value. Bound by the launch; of prompts by memory.
#include "gpu/kernels/attention_page.h"
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 256;

SLUICE_KERNEL void merge_states_kernel(MergeStatesCall call) {
  take_turn();
  const uint64_t i = uint64_t{block_x()} * threads + thread_x();
  if (i >= uint64_t{call.n_rows} * call.head_dim) return;
  const uint64_t row = i / call.head_dim, at = 2 + i % call.head_dim;
  const float* a = call.a + row * (uint64_t{call.head_dim} + 2);
  const float* b = call.b + row * (uint64_t{call.head_dim} + 2);
  if (a[1] == 0.0f || b[1] == 0.0f) {
    const float* seen = b[1] == 0.0f ? a : b;
    call.out[i] = finished(seen[at], seen[1]);
    return;
  }
  PageSums sums{a[0], a[1]};
  const Factors factors = merge_page(sums, {b[0], b[1]});
  call.out[i] = finished(merge_value(factors, a[at], b[at]), sums.l);
}

}  // namespace

Status run(cudaStream_t stream, const MergeStatesCall& call, const KernelContext&) {
  const uint64_t n = uint64_t{call.n_rows} * call.head_dim;
  if (n == 0) return {};
  const LaunchShape shape{.grid_x = blocks_for(n, threads), .block_x = threads, .early = true};
  return launch(stream, launch_info("merge_states", call), shape, merge_states_kernel, call);
}

}  // namespace sluice::gpu
