// f32 activations into the rows that products with quantized weights take (q8_rows.h).
//
// Bytes: 4 read and 3.25 written for each value. Flops: about 4. Bound by device memory; for few tokens by
// the time of a launch.
//
// Eight lanes have a block of 32 values, four each: its largest magnitude is scaled to 127 and the values are
// rounded to nearest, ties to even. A block that holds an infinity or a NaN becomes zeros with the scale NaN.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/q8_rows.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 128, values_per_thread = 4;
constexpr int32_t infinity_bits = 0x7f800000;
// Below this 127 / max might be infinite; such a block counts as zero.
constexpr float smallest_max = 0x1p-119f;
constexpr float magic = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits

// Over the eight lanes of a block.
SLUICE_DEVICE int32_t max_of_8(int32_t v) {
  SLUICE_UNROLL
  for (uint32_t mask = 4; mask > 0; mask /= 2) {
    const int32_t other = shuffle_xor(v, mask);
    v = other > v ? other : v;
  }
  return v;
}
SLUICE_DEVICE int32_t sum_of_8(int32_t v) {
  SLUICE_UNROLL
  for (uint32_t mask = 4; mask > 0; mask /= 2) v += shuffle_xor(v, mask);
  return v;
}

SLUICE_DEVICE uint32_t bf16_pair(uint32_t low, uint32_t high) {
  return float_to_bf16_bits(__builtin_bit_cast(float, low)) |
         static_cast<uint32_t>(float_to_bf16_bits(__builtin_bit_cast(float, high))) << 16;
}

// The magnitude's bits, in whose order infinity and NaN come last.
SLUICE_DEVICE int32_t largest_bits(const Vec16& x) {
  int32_t largest = 0;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 4; ++i) {
    const auto bits = static_cast<int32_t>(x.words[i] & 0x7fffffffu);
    largest = bits > largest ? bits : largest;
  }
  return max_of_8(largest);
}

// Four values times `factor` as bytes; `sum` becomes their sum.
SLUICE_DEVICE uint32_t rounded_bytes(const Vec16& x, float factor, int32_t& sum) {
  uint32_t bytes = 0;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 4; ++i) {
    const float scaled = __builtin_bit_cast(float, x.words[i]) * factor;
    const int32_t q = __builtin_bit_cast(int32_t, scaled + magic) - 0x4b400000;
    sum += q;
    bytes |= (static_cast<uint32_t>(q) & 255) << (8 * i);
  }
  return bytes;
}

struct alignas(8) Pairs {
  uint32_t words[2];
};

SLUICE_KERNEL void quantize_kernel(QuantizeCall call, Q8Layout layout) {
  const uint64_t n = uint64_t{call.n_rows} * call.cols;
  const uint64_t i = (uint64_t{block_x()} * threads + thread_x()) * values_per_thread;
  const bool inside = i < n;
  const Vec16 x = inside ? load16(call.x + i) : Vec16{};
  const int32_t largest = largest_bits(x);
  const bool finite = largest < infinity_bits;
  const auto most = __builtin_bit_cast(float, largest);
  const bool usual = finite && most >= smallest_max;
  int32_t sum = 0;
  const uint32_t bytes = usual ? rounded_bytes(x, 127.0f / most, sum) : 0;
  sum = sum_of_8(sum);
  if (!inside) return;
  std::byte* row = call.out + i / call.cols * layout.row_bytes;
  const uint64_t column = i % call.cols;
  *reinterpret_cast<uint32_t*>(row + column) = bytes;
  *reinterpret_cast<Pairs*>(row + layout.bf16 +
                            2 * column) = {{bf16_pair(x.words[0], x.words[1]), bf16_pair(x.words[2], x.words[3])}};
  if (column % 32 != 0) return;
  const float scale = usual ? most / 127.0f : finite ? 0.0f : __builtin_nanf("");
  reinterpret_cast<Q8Scale*>(row + layout.scales)[column / 32] = {scale, static_cast<float>(sum)};
}

SLUICE_KERNEL void copy_kernel(const float* x, float* out, uint64_t n) {
  const uint64_t i = uint64_t{block_x()} * threads + thread_x();
  if (i < n) out[i] = x[i];
}

}  // namespace

Status run(cudaStream_t stream, const QuantizeCall& call, const KernelContext&) {
  const uint64_t n = uint64_t{call.n_rows} * call.cols;
  if (n == 0) return {};
  const LaunchInfo counted = launch_info("quantize", call);
  if (call.format == ActFormat::f32) {
    const LaunchShape shape{.grid_x = blocks_for(n, threads), .block_x = threads};
    return launch(stream, counted, shape, copy_kernel, call.x, reinterpret_cast<float*>(call.out), n);
  }
  const LaunchShape shape{.grid_x = blocks_for(n, threads * values_per_thread), .block_x = threads};
  return launch(stream, counted, shape, quantize_kernel, call, q8_layout(call.cols));
}

}  // namespace sluice::gpu
