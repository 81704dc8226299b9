// out (+)= weight * x / sqrt(mean(x^2) + eps), row by row; alone, or with the quantizing of what it makes.
//
// Bytes: 8 a value (12 to a residual, 11.25 with the quantized ones), and the weight once. Flops: 4 a value. Bound by
// memory for many rows, by the latency of a block for few: a row is one block's.
//
// A thread has four values of every 2048 and adds their squares in order, a warp its lanes, every warp the warps.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/joint.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/quantize_block.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 512, warps = threads / 32, step = 4 * threads;

// The sum over the block, in every thread.
SLUICE_DEVICE float block_sum(float value, float* partial) {
  value = warp_sum(value);
  if (lane() == 0) partial[warp()] = value;
  block_barrier();
  return warp_sum(lane() < warps ? partial[lane()] : 0.0f);
}

// Values c..c + 3 of a row, zeros beyond its end. vectors: rows are multiples of 16 bytes.
template <bool vectors>
SLUICE_DEVICE Vec16 four_of(const float* row, uint32_t c, uint32_t cols) {
  Vec16 four{};
  if constexpr (vectors) {
    if (c < cols) four = load16(row + c);
  } else {
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 4; ++i) four.words[i] = c + i < cols ? __builtin_bit_cast(uint32_t, row[c + i]) : 0;
  }
  return four;
}

// Values beyond a row are zeros, which add nothing.
SLUICE_DEVICE float add_squares(const Vec16& four, float squares) {
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 4; ++i) {
    const auto value = __builtin_bit_cast(float, four.words[i]);
    squares = fmaf(value, value, squares);
  }
  return squares;
}

SLUICE_DEVICE float scale_of(const RmsNormCall& call, float squares) {
  return 1.0f / sqrtf(squares / static_cast<float>(call.cols) + call.eps);
}

// Four values times `scale`, and their weights.
SLUICE_DEVICE Vec16 normed(const RmsNormCall& call, const Vec16& x, const Vec16& weight, float scale) {
  Vec16 four;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 4; ++i) {
    float value = __builtin_bit_cast(float, x.words[i]) * scale;
    if (call.weight != nullptr) value *= __builtin_bit_cast(float, weight.words[i]);
    four.words[i] = __builtin_bit_cast(uint32_t, value);
  }
  return four;
}

SLUICE_DEVICE void add_to(Vec16& sum, const Vec16& four) {
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 4; ++i)
    sum.words[i] = __builtin_bit_cast(
        uint32_t, __builtin_bit_cast(float, sum.words[i]) + __builtin_bit_cast(float, four.words[i]));
}

template <bool vectors>
SLUICE_DEVICE void store_four(const Vec16& four, float* row, uint32_t c, uint32_t cols) {
  if constexpr (vectors) {
    store16(row + c, four);
  } else {
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 4; ++i)
      if (c + i < cols) row[c + i] = __builtin_bit_cast(float, four.words[i]);
  }
}

template <bool vectors>
SLUICE_KERNEL void rms_norm_kernel(RmsNormCall call) {
  take_turn();
  SLUICE_SHARED(float, partial, [warps]);
  const float* x = call.x + uint64_t{block_x()} * call.cols;
  float* out = call.out + uint64_t{block_x()} * call.cols;
  float squares = 0.0f;
  for (uint32_t c = 4 * thread_x(); c < call.cols; c += step)
    squares = add_squares(four_of<vectors>(x, c, call.cols), squares);
  const float scale = scale_of(call, block_sum(squares, partial));
  for (uint32_t c = 4 * thread_x(); c < call.cols; c += step) {
    const Vec16 weight = call.weight != nullptr ? four_of<vectors>(call.weight, c, call.cols) : Vec16{};
    Vec16 four = normed(call, four_of<vectors>(x, c, call.cols), weight, scale);
    if (call.accumulate) {
      Vec16 sum = four_of<vectors>(out, c, call.cols);
      add_to(sum, four);
      four = sum;
    }
    store_four<vectors>(four, out, c, call.cols);
  }
}

// What a thread has of a row: values 4 * thread + 2048 * i and three more, and their weights, both asked for before
// either is needed.
struct Kept {
  Vec16 x, weight;
};
constexpr uint32_t most_kept = 4;  // of wider rows the rest is read when its turn comes

SLUICE_DEVICE Vec16 weights_of(const RmsNormCall& call, uint32_t c) {
  return call.weight != nullptr ? four_of<true>(call.weight, c, call.cols) : Vec16{};
}

// By whole warps.
SLUICE_DEVICE void store_normed(const RmsNormCall& call, const Kept& kept, float scale, uint32_t c, float* out,
                                std::byte* quantized, const Q8Layout& layout) {
  const bool inside = c < call.cols;
  const Vec16 four = inside ? normed(call, kept.x, kept.weight, scale) : Vec16{};
  if (inside) store16(out + c, four);
  quantize_four(four, inside, quantized, layout, c);
}

// Rows are multiples of 128 bytes here, so that vectors serve.
SLUICE_KERNEL void rms_norm_quantize_kernel(RmsNormCall call, std::byte* quantized, Q8Layout layout) {
  let_next_begin();
  SLUICE_SHARED(float, partial, [warps]);
  const float* x = call.x + uint64_t{block_x()} * call.cols;
  float* out = call.out + uint64_t{block_x()} * call.cols;
  std::byte* row = quantized + uint64_t{block_x()} * layout.row_bytes;
  const uint32_t mine = 4 * thread_x(), of_warp = 128 * warp();
  Kept kept[most_kept];
  SLUICE_UNROLL
  for (uint32_t i = 0; i < most_kept; ++i) kept[i].weight = weights_of(call, mine + i * step);  // no kernel writes them
  wait_for_previous();
  SLUICE_UNROLL
  for (uint32_t i = 0; i < most_kept; ++i) kept[i].x = four_of<true>(x, mine + i * step, call.cols);
  float squares = 0.0f;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < most_kept; ++i) squares = add_squares(kept[i].x, squares);
  for (uint32_t c = mine + most_kept * step; c < call.cols; c += step)
    squares = add_squares(four_of<true>(x, c, call.cols), squares);
  const float scale = scale_of(call, block_sum(squares, partial));
  SLUICE_UNROLL
  for (uint32_t i = 0; i < most_kept; ++i)
    if (of_warp + i * step < call.cols) store_normed(call, kept[i], scale, mine + i * step, out, row, layout);
  for (uint32_t first = most_kept * step; of_warp + first < call.cols; first += step) {
    const uint32_t c = mine + first;
    store_normed(call, {four_of<true>(x, c, call.cols), weights_of(call, c)}, scale, c, out, row, layout);
  }
}

}  // namespace

Status run(cudaStream_t stream, const RmsNormCall& call, const KernelContext&) {
  if (call.n_rows == 0 || call.cols == 0) return {};
  const LaunchShape shape{.grid_x = call.n_rows, .block_x = threads, .early = true};
  const bool vectors =
      call.cols % 4 == 0 && multiple_of_16(call.x) && multiple_of_16(call.out) && multiple_of_16(call.weight);
  const auto kernel = vectors ? rms_norm_kernel<true> : rms_norm_kernel<false>;
  return launch(stream, launch_info("rms_norm", call), shape, kernel, call);
}

bool joins(const RmsNormCall& norm, const QuantizeCall& next) {
  return quantizes(next, norm.out, norm.n_rows, norm.cols) && !norm.accumulate && multiple_of_16(norm.x) &&
         multiple_of_16(norm.weight);
}

Status run_joint(cudaStream_t stream, const RmsNormCall& norm, const QuantizeCall& quantize) {
  if (norm.n_rows == 0) return {};
  const LaunchShape shape{.grid_x = norm.n_rows, .block_x = threads, .early = true};
  return launch(stream, joint_info("rms_norm_quantize", std::array<KernelCall, 2>{norm, quantize}), shape,
                rms_norm_quantize_kernel, norm, quantize.out, q8_layout(norm.cols));
}

}  // namespace sluice::gpu
