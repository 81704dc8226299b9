// Rows of a table (token embeddings) that lie anywhere, dequantized and scaled.
//
// Bytes: a row of weights read and 4 bytes a value written. Flops: 1 a value. Bound by memory: the link to
// the host where rows lie in pinned memory, else the launch; it moves a few rows.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/values.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 256;

// A block has a row and looks its place up once; a thread has every 256th group of 16 values.
template <class F>
SLUICE_KERNEL void gather_rows_kernel(GatherRowsCall call) {
  take_turn();
  SLUICE_SHARED(const std::byte*, row, [1]);
  if (thread_x() == 0) row[0] = call.rows[block_x()];
  block_barrier();
  for (uint32_t g = thread_x(); 16 * g < call.cols; g += threads) {
    float values[16];
    load_values(F{}, row[0], g, call.cols, values);
    float* out = call.out + uint64_t{block_x()} * call.cols + 16 * g;
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 16; ++i)
      if (16 * g + i < call.cols) out[i] = call.scale * values[i];
  }
}

}  // namespace

Status run(cudaStream_t stream, const GatherRowsCall& call, const KernelContext&) {
  if (call.n_rows == 0 || call.cols == 0) return {};
  return with_format("gather_rows", call.dtype, [&]<class F>(F) {
    const LaunchShape shape{.grid_x = call.n_rows, .block_x = threads, .early = true};
    return launch(stream, launch_info("gather_rows", call), shape, gather_rows_kernel<F>, call);
  });
}

}  // namespace sluice::gpu
