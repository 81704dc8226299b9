#include "cpu/kernels/declare.h"
#include "cpu/kernels/dense.h"
#include "cpu/kernels/scaling.h"
#include "cpu/kernels/vector.h"

namespace sluice::cpu::SLUICE_ISA {
namespace {

constexpr uint32_t block = 32;

// Where the parts of a block go.
struct Out {
  int8_t* q;
  float* scale;
  int16_t* sums;
  float* total;
};

// The largest magnitude as the bits of a float, in whose order infinity and NaN come last.
[[gnu::always_inline]] inline uint32_t largest_magnitude(const Vec& a, const Vec& b) {
  const IVec x = as<int32_t>(bits(a) & 0x7fffffffu), y = as<int32_t>(bits(b) & 0x7fffffffu);
  return static_cast<uint32_t>(fold_all(if_greater(x, y, x, y), Max()));
}

// x * factor to the nearest integer, ties to even: adding 1.5 * 2^23 leaves it in the low bits.
[[gnu::always_inline]] inline IVec round_to_int(const Vec& x, float factor) {
  return as<int32_t>(bits(x * factor + nearest_magic)) - 0x4b400000;
}

[[gnu::always_inline]] inline void store_bytes(int8_t* q, const IVec& v) {
  using Bytes [[gnu::vector_size(part_lanes)]] = int8_t;
  for (uint32_t i = 0; i < n_parts; ++i) {
    const Bytes part = __builtin_convertvector(v.p[i], Bytes);
    std::memcpy(q + i * part_lanes, &part, sizeof part);
  }
}

// A block that holds an infinity or a NaN becomes zeros with the scale NaN, so that it is noticed.
[[gnu::always_inline]] inline void quantize_block(const float* x, const Out& out) {
  const Vec a = load(x), b = load(x + lanes);
  const Scaling s = scaling_of(largest_magnitude(a, b));
  *out.scale = s.scale;
  if (s.factor == 0.0f) {
    std::memset(out.q, 0, block);
    std::memset(out.sums, 0, 2 * sizeof(int16_t));
    *out.total = 0.0f;
    return;
  }
  const IVec q0 = round_to_int(a, s.factor), q1 = round_to_int(b, s.factor);
  store_bytes(out.q, q0);
  store_bytes(out.q + lanes, q1);
  const int32_t sum0 = fold_all(q0, Add()), sum1 = fold_all(q1, Add());
  out.sums[0] = static_cast<int16_t>(sum0);
  out.sums[1] = static_cast<int16_t>(sum1);
  *out.total = static_cast<float>(sum0 + sum1);
}

// Blocks [begin, end) of one row.
void quantize_blocks(const float* x, std::byte* row, uint32_t cols, uint32_t begin, uint32_t end) {
  auto* scales = reinterpret_cast<float*>(row + q8_scales_offset(cols));
  auto* sums = reinterpret_cast<int16_t*>(row + q8_sums_offset(cols));
  auto* totals = reinterpret_cast<float*>(row + q8_totals_offset(cols));
  for (uint64_t b = begin; b < end; ++b)
    quantize_block(x + block * b, {reinterpret_cast<int8_t*>(row) + block * b, scales + b, sums + 2 * b, totals + b});
}

}  // namespace

void quantize(const QuantizeCall& call, Share share) {
  if (call.format == ActFormat::f32) {
    const Range range = range_of(call.n_rows, share);
    const uint64_t row_bytes = uint64_t{call.cols} * 4;
    __builtin_memcpy(call.out + range.begin * row_bytes, call.x + uint64_t{range.begin} * call.cols,
                     (range.end - range.begin) * row_bytes);
    return;
  }
  if (call.format == ActFormat::bf16) return pack_bf16(call, share);
  if (call.format == ActFormat::wide8) return pack_wide8(call, share);
  const uint32_t blocks = call.cols / block;
  const Range range = range_of(call.n_rows * blocks, share, 16);
  for (uint32_t i = range.begin; i < range.end;) {
    const uint32_t row = i / blocks, first = i % blocks;
    const uint32_t n = blocks - first < range.end - i ? blocks - first : range.end - i;
    quantize_blocks(call.x + uint64_t{row} * call.cols, call.out + row * q8_row_bytes(call.cols), call.cols, first,
                    first + n);
    i += n;
  }
}

}  // namespace sluice::cpu::SLUICE_ISA
