// out[t][r] = sum_c weights[r][c] * x[t][c] for long prompts: weights dequantized to bf16 in scratch memory, some rows
// at a time, and multiplied with the bf16 part of q8 rows by the vendor's library (gpu/dense_product.h).
//
// Bytes: the weights once, 2 bytes a value written and, mostly from the L2, read again; the activations from the L2.
// Flops: 2 * tokens * rows * cols. Bound by the tensor cores from some 300 tokens on, by the dequantizing below.
//
// A value is dequantized in f32 and rounded to bf16, as matmul_tile.cu does. Which rows are dequantized together
// depends on the scratch memory only where that is smaller than dense_scratch_bytes.
#include <algorithm>

#include "gpu/dense_product.h"
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/product.h"
#include "gpu/kernels/q8_rows.h"
#include "gpu/kernels/values.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 256;

SLUICE_DEVICE uint32_t bf16_pair(const float* values) {
  return float_to_bf16_bits(values[0]) | static_cast<uint32_t>(float_to_bf16_bits(values[1])) << 16;
}

// A thread has a group of 16 values.
template <class F>
SLUICE_KERNEL void dequantize_kernel(const std::byte* weights, uint64_t row_bytes, uint32_t cols, uint64_t n_groups,
                                     uint16_t* out) {
  const uint64_t i = uint64_t{block_x()} * threads + thread_x();
  if (i >= n_groups) return;
  const uint32_t per_row = cols / 16;
  float values[16];
  load_values(F{}, weights + i / per_row * row_bytes, static_cast<uint32_t>(i % per_row), cols, values);
  SLUICE_UNROLL
  for (uint32_t half = 0; half < 2; ++half) {
    Vec16 packed;
    SLUICE_UNROLL
    for (uint32_t j = 0; j < 4; ++j) packed.words[j] = bf16_pair(values + 8 * half + 2 * j);
    store16(out + 16 * i + 8 * half, packed);
  }
}

SLUICE_KERNEL void add_bias_kernel(const float* bias, uint32_t rows, uint32_t stride, float* out) {
  const uint32_t row = block_x() * threads + thread_x();
  if (row < rows) out[uint64_t{block_y()} * stride + row] += bias[row];
}

Status dequantize(cudaStream_t stream, const MatmulCall& call, uint16_t* out) {
  const uint64_t groups = uint64_t{call.rows} * (call.cols / 16), bytes_of_row = row_bytes(call.dtype, call.cols);
  const LaunchInfo counted{"dequantize", call.rows * (bytes_of_row + 2ull * call.cols), 0};
  const LaunchShape shape{.grid_x = blocks_for(groups, threads), .block_x = threads};
  return with_quantized("dequantize", call.dtype, [&]<class F>(F) {
    return launch(stream, counted, shape, dequantize_kernel<F>, call.weights, bytes_of_row, call.cols, groups, out);
  });
}

uint64_t rows_with(const KernelContext& context, uint32_t cols) { return context.scratch_bytes / (2ull * cols); }

Status multiply(cudaStream_t stream, const MatmulCall& call, const KernelContext& context) {
  auto* weights = reinterpret_cast<uint16_t*>(context.scratch);
  SLUICE_RETURN_IF_ERROR(dequantize(stream, call, weights));
  const Q8Layout layout = q8_layout(call.cols);
  const auto* x = reinterpret_cast<const uint16_t*>(call.x + layout.bf16);
  LaunchTotals& totals = launch_totals();
  totals.launches += 1;
  totals.flops += 2ull * call.n_tokens * call.rows * call.cols;
  return context.dense->multiply(stream, {weights, call.rows, call.cols, x, layout.row_bytes / 2, call.n_tokens,
                                          call.out, call.out_stride, call.accumulate});
}

}  // namespace

bool matmul_dense_serves(const MatmulCall& call, const KernelContext& context) {
  // The library aligns what it reads to 16 bytes; a bias comes before what is accumulated, which it cannot do.
  return context.dense != nullptr && call.x_format == ActFormat::q8 && call.n_tokens >= dense_tokens &&
         rows_with(context, call.cols) >= std::min(call.rows, dense_least_rows) && call.out_stride % 4 == 0 &&
         call.rows % 16 == 0 && reinterpret_cast<uintptr_t>(call.out) % 16 == 0 &&
         !(call.bias != nullptr && call.accumulate);
}

Status matmul_dense(cudaStream_t stream, const MatmulCall& call, const KernelContext& context) {
  const uint64_t room = std::min<uint64_t>(rows_with(context, call.cols), dense_most_rows(call.cols));
  const auto at_once = static_cast<uint32_t>(room < call.rows ? room / dense_least_rows * dense_least_rows : call.rows);
  for (uint32_t first = 0; first < call.rows; first += at_once) {
    MatmulCall part = call;
    part.weights += first * row_bytes(call.dtype, call.cols);
    part.rows = std::min(at_once, call.rows - first);
    part.out += first;
    SLUICE_RETURN_IF_ERROR(multiply(stream, part, context));
  }
  if (call.bias == nullptr) return {};
  const LaunchShape shape{.grid_x = blocks_for(call.rows, threads), .grid_y = call.n_tokens, .block_x = threads};
  return launch(stream, {"add_bias", 8ull * call.rows * call.n_tokens, 0}, shape, add_bias_kernel, call.bias, call.rows,
                call.out_stride, call.out);
}

}  // namespace sluice::gpu
