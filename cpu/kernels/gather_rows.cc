#include "cpu/kernels/declare.h"
#include "cpu/kernels/dequant.h"

namespace sluice::cpu::SLUICE_ISA {

void gather_rows(const GatherRowsCall& call, Share share) {
  const Range range = range_of(call.n_rows, share);
  for (uint32_t i = range.begin; i < range.end; ++i) {
    float* out = call.out + uint64_t{i} * call.cols;
    dequantize(call.dtype, call.rows[i], call.cols, out);
    if (call.scale != 1.0f)
      for (uint32_t c = 0; c < call.cols; ++c) out[c] *= call.scale;
  }
}

}  // namespace sluice::cpu::SLUICE_ISA
