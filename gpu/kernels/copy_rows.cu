// out[i] = x[index[i]].
//
// Bytes: 8 a value. No flops. Bound by memory, or by the link where rows come from the host or go there; for few rows
// by the launch.
#include <algorithm>

#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/joint.h"
#include "gpu/kernels/kernels.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 256, blocks_per_sm = 4;

// A block has a row at a time, or of few rows a part of one; it looks the row's place up once, since the index may lie
// in host memory. T: a float, or four where rows are multiples of 16 bytes; `cols` and `stride` count in T.
template <class T>
SLUICE_KERNEL void copy_rows_kernel(CopyRowsCall call, uint32_t cols, uint32_t stride) {
  take_turn();
  SLUICE_SHARED(uint32_t, from, [1]);
  for (uint32_t row = block_y(); row < call.n_rows; row += grid_y()) {
    if (thread_x() == 0) from[0] = call.index[row];
    block_barrier();
    const T* x = reinterpret_cast<const T*>(call.x) + uint64_t{from[0]} * stride;
    T* out = reinterpret_cast<T*>(call.out) + uint64_t{row} * stride;
    for (uint32_t c = block_x() * threads + thread_x(); c < cols; c += grid_x() * threads) out[c] = x[c];
    block_barrier();  // all have read the place
  }
}

template <class T>
Status start(cudaStream_t stream, const CopyRowsCall& call, const KernelContext& context) {
  constexpr uint32_t floats = sizeof(T) / sizeof(float);
  const uint32_t cols = call.cols / floats, most = blocks_for(cols, threads);
  const uint32_t rows = std::min(call.n_rows, most_blocks_y), wanted = blocks_per_sm * context.n_sms / rows;
  const LaunchShape shape{.grid_x = std::clamp(wanted, 1u, most), .grid_y = rows, .block_x = threads, .early = true};
  return launch(stream, launch_info("copy_rows", call), shape, copy_rows_kernel<T>, call, cols,
                call.row_stride() / floats);
}

}  // namespace

Status run(cudaStream_t stream, const CopyRowsCall& call, const KernelContext& context) {
  if (call.n_rows == 0 || call.cols == 0) return {};
  const bool vectors =
      call.cols % 4 == 0 && call.row_stride() % 4 == 0 && multiple_of_16(call.x) && multiple_of_16(call.out);
  return vectors ? start<Vec16>(stream, call, context) : start<float>(stream, call, context);
}

}  // namespace sluice::gpu
