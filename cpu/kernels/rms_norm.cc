#include "cpu/kernels/declare.h"
#include "cpu/kernels/vector.h"

namespace sluice::cpu::SLUICE_ISA {
namespace {

// Four running sums of 16 lanes, so that a row of 8192 adds at most 128 squares to each.
float sum_of_squares(const float* x, uint32_t cols) {
  Vec acc[4] = {};
  uint32_t c = 0;
  for (; c + 4 * lanes <= cols; c += 4 * lanes) {
    for (uint32_t i = 0; i < 4; ++i) {
      const Vec v = load(x + c + i * lanes);
      acc[i] += v * v;
    }
  }
  for (; c + lanes <= cols; c += lanes) {
    const Vec v = load(x + c);
    acc[0] += v * v;
  }
  const Vec v = load_part(x + c, cols - c);
  acc[1] += v * v;
  return sum((acc[0] + acc[1]) + (acc[2] + acc[3]));
}

void norm_row(const RmsNormCall& call, uint32_t row) {
  const float* x = call.x + uint64_t{row} * call.cols;
  float* out = call.out + uint64_t{row} * call.cols;
  const double mean = static_cast<double>(sum_of_squares(x, call.cols)) / call.cols;
  const auto scale = static_cast<float>(1.0 / __builtin_sqrt(mean + static_cast<double>(call.eps)));
  if (call.accumulate && call.weight != nullptr)
    for (uint32_t c = 0; c < call.cols; ++c) out[c] += x[c] * scale * call.weight[c];
  else if (call.accumulate)
    for (uint32_t c = 0; c < call.cols; ++c) out[c] += x[c] * scale;
  else if (call.weight == nullptr)
    for (uint32_t c = 0; c < call.cols; ++c) out[c] = x[c] * scale;
  else
    for (uint32_t c = 0; c < call.cols; ++c) out[c] = x[c] * scale * call.weight[c];
}

}  // namespace

void rms_norm(const RmsNormCall& call, Share share) {
  const Part rows = part_of(call.n_rows, share, 1);
  for (uint64_t r = rows.begin; r < rows.end; ++r) norm_row(call, static_cast<uint32_t>(r));
}

}  // namespace sluice::cpu::SLUICE_ISA
