// out[i] = x[index[i]].
//
// Bytes: 8 a value. No flops. Bound by memory; for few rows by the launch.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 256;

SLUICE_KERNEL void copy_rows_kernel(CopyRowsCall call) {
  const uint32_t c = block_x() * threads + thread_x();
  if (c >= call.cols) return;
  for (uint32_t row = block_y(); row < call.n_rows; row += grid_y())
    call.out[uint64_t{row} * call.cols + c] = call.x[uint64_t{call.index[row]} * call.cols + c];
}

}  // namespace

Status run(cudaStream_t stream, const CopyRowsCall& call, const KernelContext&) {
  if (call.n_rows == 0 || call.cols == 0) return {};
  const LaunchShape shape{.grid_x = blocks_for(call.cols, threads),
                          .grid_y = call.n_rows < 65535 ? call.n_rows : 65535,
                          .block_x = threads};
  return launch(stream, launch_info("copy_rows", call), shape, copy_rows_kernel, call);
}

}  // namespace sluice::gpu
