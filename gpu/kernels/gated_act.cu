// out = activation(gate) * up; alone, or with the quantizing of what it makes.
//
// Bytes: 12 a value (15.25 with the quantized ones). Flops: about 8. Bound by memory; for few tokens by the launch.
#include <algorithm>

#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/joint.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/quantize_block.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 256, joint_threads = 128;

SLUICE_DEVICE float silu(float x) { return x / (1.0f + expf(-x)); }

SLUICE_DEVICE float gelu_tanh(float x) {
  const float u = 0.7978845608f * fmaf(0.044715f * x * x, x, x);  // sqrt(2 / pi)
  return 0.5f * x * (1.0f + tanhf(u));
}

SLUICE_DEVICE float gated(Activation activation, float gate, float up) {
  return (activation == Activation::silu ? silu(gate) : gelu_tanh(gate)) * up;
}

// `rows` of n values that lie behind one another.
SLUICE_KERNEL void gated_act_kernel(GatedActCall call, uint32_t rows, uint64_t n) {
  take_turn();
  const uint64_t i = uint64_t{block_x()} * threads + thread_x();
  if (i >= n) return;
  for (uint32_t row = block_y(); row < rows; row += grid_y()) {
    const uint64_t at = uint64_t{row} * call.stride + i;
    call.out[at] = gated(call.activation, call.gate[at], call.up[at]);
  }
}

SLUICE_KERNEL void gated_act_quantize_kernel(GatedActCall call, std::byte* quantized, Q8Layout layout, uint64_t n) {
  take_turn();
  const uint64_t first = (uint64_t{block_x()} * joint_threads + thread_x()) * 4;
  const bool inside = first < n;
  Vec16 four{};
  if (inside) {
    const Vec16 gate = load16(call.gate + first), up = load16(call.up + first);
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 4; ++i)
      four.words[i] = __builtin_bit_cast(uint32_t, gated(call.activation, __builtin_bit_cast(float, gate.words[i]),
                                                         __builtin_bit_cast(float, up.words[i])));
    store16(call.out + first, four);
  }
  quantize_four(four, inside, quantized + first / call.cols * layout.row_bytes, layout, first % call.cols);
}

}  // namespace

Status run(cudaStream_t stream, const GatedActCall& call, const KernelContext&) {
  if (call.n_rows == 0 || call.cols == 0) return {};
  const bool apart = call.row_stride() != call.cols;
  const uint32_t rows = apart ? call.n_rows : 1;
  const uint64_t n = apart ? call.cols : uint64_t{call.n_rows} * call.cols;
  const LaunchShape shape{
      .grid_x = blocks_for(n, threads), .grid_y = std::min(rows, most_blocks_y), .block_x = threads, .early = true};
  return launch(stream, launch_info("gated_act", call), shape, gated_act_kernel, call, rows, n);
}

bool joins(const GatedActCall& act, const QuantizeCall& next) {
  return act.row_stride() == act.cols && quantizes(next, act.out, act.n_rows, act.cols) && multiple_of_16(act.gate) &&
         multiple_of_16(act.up);
}

Status run_joint(cudaStream_t stream, const GatedActCall& act, const QuantizeCall& quantize) {
  const uint64_t n = uint64_t{act.n_rows} * act.cols;
  if (n == 0) return {};
  const LaunchShape shape{.grid_x = blocks_for(n, 4 * joint_threads), .block_x = joint_threads, .early = true};
  return launch(stream, joint_info("gated_act_quantize", std::array<KernelCall, 2>{act, quantize}), shape,
                gated_act_quantize_kernel, act, quantize.out, q8_layout(act.cols), n);
}

}  // namespace sluice::gpu
