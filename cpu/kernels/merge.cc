#include "cpu/kernels/declare.h"
#include "cpu/kernels/vector.h"

namespace sluice::cpu::SLUICE_ISA {
namespace {

// Columns [begin, end) of one token.
void merge_row(const MergeCall& call, uint64_t token, uint64_t begin, uint64_t end) {
  const float* const* parts = call.parts + token * call.k;
  const float* weights = call.weights + token * call.k;
  float* out = call.out + token * call.cols;
  for (uint64_t c = begin; c < end; c += lanes) {
    const auto n = static_cast<uint32_t>(end - c < lanes ? end - c : lanes);
    const bool whole = n == lanes;
    Vec acc{};
    if (call.accumulate) acc = whole ? load(out + c) : load_part(out + c, n);
    for (uint32_t s = 0; s < call.k; ++s) acc += weights[s] * (whole ? load(parts[s] + c) : load_part(parts[s] + c, n));
    if (whole) store(out + c, acc);
    else store_part(out + c, acc, n);
  }
}

}  // namespace

void merge(const MergeCall& call, Share share) {
  const Part part = part_of(uint64_t{call.n_tokens} * call.cols, share, lanes);
  for (uint64_t i = part.begin; i < part.end;) {
    const uint64_t col = i % call.cols;
    const uint64_t rest = part.end - i, in_row = call.cols - col;
    const uint64_t n = rest < in_row ? rest : in_row;
    merge_row(call, i / call.cols, col, col + n);
    i += n;
  }
}

}  // namespace sluice::cpu::SLUICE_ISA
