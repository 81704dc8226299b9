// out[i] = x[index[i]].
//
// Bytes: 8 a value. No flops. Bound by memory; for few rows by the launch.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 256;

// A block has a row at a time; it looks the row's place up once, since the index may lie in host memory.
SLUICE_KERNEL void copy_rows_kernel(CopyRowsCall call) {
  SLUICE_SHARED(uint32_t, from, [1]);
  for (uint32_t row = block_x(); row < call.n_rows; row += grid_x()) {
    if (thread_x() == 0) from[0] = call.index[row];
    block_barrier();
    const float* x = call.x + uint64_t{from[0]} * call.cols;
    float* out = call.out + uint64_t{row} * call.cols;
    for (uint32_t c = thread_x(); c < call.cols; c += threads) out[c] = x[c];
    block_barrier();  // all have read the place
  }
}

}  // namespace

Status run(cudaStream_t stream, const CopyRowsCall& call, const KernelContext&) {
  if (call.n_rows == 0 || call.cols == 0) return {};
  const LaunchShape shape{.grid_x = call.n_rows, .block_x = threads};
  return launch(stream, launch_info("copy_rows", call), shape, copy_rows_kernel, call);
}

}  // namespace sluice::gpu
