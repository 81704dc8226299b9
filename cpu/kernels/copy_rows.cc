#include "cpu/kernels/declare.h"
#include "cpu/kernels/vector.h"

namespace sluice::cpu::SLUICE_ISA {

void copy_rows(const CopyRowsCall& call, Share share) {
  const Part part = part_of(uint64_t{call.n_rows} * call.cols, share, lanes);
  const uint64_t stride = call.row_stride();
  for (uint64_t i = part.begin; i < part.end;) {
    const uint64_t row = i / call.cols, col = i % call.cols;
    const uint64_t rest = part.end - i, in_row = call.cols - col;
    const uint64_t n = rest < in_row ? rest : in_row;
    std::memcpy(call.out + row * stride + col, call.x + call.index[row] * stride + col, n * sizeof(float));
    i += n;
  }
}

}  // namespace sluice::cpu::SLUICE_ISA
