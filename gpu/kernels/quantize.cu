// f32 activations into the rows that products with quantized weights take (q8_rows.h, quantize_block.h).
//
// Bytes: 4 read and 3.25 written for each value. Flops: about 4. Bound by device memory; for few tokens by
// the time of a launch.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/quantize_block.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 128, values_per_thread = 4;

SLUICE_KERNEL void quantize_kernel(QuantizeCall call, Q8Layout layout) {
  take_turn();
  const uint64_t n = uint64_t{call.n_rows} * call.cols;
  const uint64_t i = (uint64_t{block_x()} * threads + thread_x()) * values_per_thread;
  const bool inside = i < n;
  const Vec16 x = inside ? load16(call.x + i) : Vec16{};
  quantize_four(x, inside, call.out + i / call.cols * layout.row_bytes, layout, i % call.cols);
}

SLUICE_KERNEL void copy_kernel(const float* x, float* out, uint64_t n) {
  take_turn();
  const uint64_t i = uint64_t{block_x()} * threads + thread_x();
  if (i < n) out[i] = x[i];
}

}  // namespace

Status run(cudaStream_t stream, const QuantizeCall& call, const KernelContext&) {
  const uint64_t n = uint64_t{call.n_rows} * call.cols;
  if (n == 0) return {};
  const LaunchInfo counted = launch_info("quantize", call);
  if (call.format == ActFormat::f32) {
    const LaunchShape shape{.grid_x = blocks_for(n, threads), .block_x = threads, .early = true};
    return launch(stream, counted, shape, copy_kernel, call.x, reinterpret_cast<float*>(call.out), n);
  }
  const LaunchShape shape{.grid_x = blocks_for(n, threads * values_per_thread), .block_x = threads, .early = true};
  return launch(stream, counted, shape, quantize_kernel, call, q8_layout(call.cols));
}

}  // namespace sluice::gpu
