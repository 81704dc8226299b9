// out[t][r] = sum_c weights[r][c] * x[t][c] for 1 to 16 tokens: quantized weights, 8-bit activations.
//
// Bytes: the weights once (rows * cols * 0.56 to 1.06), the activations from the caches. Flops: 2 * tokens *
// rows * cols, by dp4a. Bound by device memory up to about 8 tokens, by dp4a (64 a clock and SM) and the
// L1's answers to activation loads at 16.
//
// A lane takes every 32nd unit of 16 values (formats.h): the unit's integer dot product is exact, and
// scale_x * (scale_w * dot + min_w * sum_x) is added to the lane's sum. N and R only say how many sums a warp
// makes at once, so a row's bits are the same for any number of tokens.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/matvec.h"
#include "gpu/kernels/q8_rows.h"

namespace sluice::gpu {
namespace {

// 1.5 * 2^23: an integer below 2^22 in magnitude, added to these bits, is added to this float.
constexpr int32_t magic_bits = 0x4b400000;
constexpr float magic = 12582912.0f;

struct Activations {
  const std::byte* values;
  const Q8Scale* scales;
};

SLUICE_DEVICE Activations activations_of(const MatmulCall& call, const Q8Layout& layout, uint32_t token) {
  const std::byte* row = call.x + least(token, call.n_tokens - 1) * layout.row_bytes;
  return {row, reinterpret_cast<const Q8Scale*>(row + layout.scales)};
}

SLUICE_DEVICE int32_t dot_8(const int32_t* q, const Vec8& x, int32_t sum) {
  return dp4a_ss(q[1], static_cast<int32_t>(x.words[1]), dp4a_ss(q[0], static_cast<int32_t>(x.words[0]), sum));
}

template <class F>
SLUICE_DEVICE float scaled(const Unit& unit, uint32_t i, const Q8Scale& x, int32_t dot_bits, float acc) {
  const float dot = __builtin_bit_cast(float, dot_bits) - magic;
  const float product = F::has_min ? fmaf(unit.scale[i], dot, unit.min[i] * x.sum) : unit.scale[i] * dot;
  return fmaf(x.scale, product, acc);
}

// acc + the unit's part of the row's product with one token.
template <class F>
SLUICE_DEVICE float add_unit(const Unit& unit, const Activations& x, float acc) {
  const Vec8 a = *reinterpret_cast<const Vec8*>(x.values + 4 * uint64_t{unit.x_word[0]});
  const Vec8 b = *reinterpret_cast<const Vec8*>(x.values + 4 * uint64_t{unit.x_word[1]});
  const int32_t dot = dot_8(unit.q, a, magic_bits);
  const Q8Scale& scale = x.scales[unit.x_word[0] / 8];
  if constexpr (F::one_scale) {
    return scaled<F>(unit, 0, scale, dot_8(unit.q + 2, b, dot), acc);
  } else {
    acc = scaled<F>(unit, 0, scale, dot, acc);
    return scaled<F>(unit, 1, x.scales[unit.x_word[1] / 8], dot_8(unit.q + 2, b, magic_bits), acc);
  }
}

template <class F, uint32_t N, uint32_t R>
SLUICE_KERNEL void matvec_q8_kernel(MatmulCall call, Q8Layout layout, uint64_t row_bytes) {
  const uint32_t first_row = (block_x() * matvec_warps + warp()) * R, n_units = call.cols / 16;
  float acc[R][N] = {};
  for (uint32_t u = lane(); u < n_units; u += 32) {
    Unit unit[R];
    SLUICE_UNROLL
    for (uint32_t r = 0; r < R; ++r)
      unit[r] = load_unit(F{}, call.weights + least(first_row + r, call.rows - 1) * row_bytes, u);
    SLUICE_UNROLL
    for (uint32_t t = 0; t < N; ++t) {
      const Activations x = activations_of(call, layout, t);
      SLUICE_UNROLL
      for (uint32_t r = 0; r < R; ++r) acc[r][t] = add_unit<F>(unit[r], x, acc[r][t]);
    }
  }
  add_lanes_and_store<N, R>(call, 0, first_row, acc);
}

template <class F, uint32_t N>
Status start(cudaStream_t stream, const MatmulCall& call) {
  constexpr uint32_t rows = N < 16 ? 2 : 4;
  const LaunchShape shape{.grid_x = blocks_for(call.rows, matvec_warps * rows), .block_x = 32 * matvec_warps};
  return launch(stream, launch_info("matvec_q8", call), shape, matvec_q8_kernel<F, N, rows>, call, q8_layout(call.cols),
                row_bytes(call.dtype, call.cols));
}

}  // namespace

Status matvec_q8(cudaStream_t stream, const MatmulCall& call) {
  return with_quantized("matvec", call.dtype, [&]<class F>(F) {
    if (call.n_tokens == 1) return start<F, 1>(stream, call);
    if (call.n_tokens == 2) return start<F, 2>(stream, call);
    if (call.n_tokens <= 4) return start<F, 4>(stream, call);
    if (call.n_tokens <= 8) return start<F, 8>(stream, call);
    return start<F, 16>(stream, call);
  });
}

}  // namespace sluice::gpu
