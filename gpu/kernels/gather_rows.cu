// Rows of a table (token embeddings) that lie anywhere, dequantized and scaled.
//
// Bytes: a row of weights read and 4 bytes a value written. Flops: 1 a value. Bound by memory: the link to
// the host where rows lie in pinned memory, else the launch; it moves a few rows.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/values.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 64;

// A thread has a group of 16 values of row block_y.
template <class F>
SLUICE_KERNEL void gather_rows_kernel(GatherRowsCall call) {
  const uint32_t g = block_x() * threads + thread_x();
  for (uint32_t row = block_y(); row < call.n_rows; row += grid_y()) {
    if (16 * g >= call.cols) continue;
    float values[16];
    load_values(F{}, call.rows[row], g, call.cols, values);
    float* out = call.out + uint64_t{row} * call.cols + 16 * g;
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 16; ++i)
      if (16 * g + i < call.cols) out[i] = call.scale * values[i];
  }
}

}  // namespace

Status run(cudaStream_t stream, const GatherRowsCall& call, const KernelContext&) {
  if (call.n_rows == 0 || call.cols == 0) return {};
  return with_format("gather_rows", call.dtype, [&]<class F>(F) {
    const LaunchShape shape{.grid_x = blocks_for(call.cols, 16 * threads),
                            .grid_y = call.n_rows < 65535 ? call.n_rows : 65535,
                            .block_x = threads};
    return launch(stream, launch_info("gather_rows", call), shape, gather_rows_kernel<F>, call);
  });
}

}  // namespace sluice::gpu
