#include "cpu/kernels/matmul.h"

#include "cpu/kernels/declare.h"

namespace sluice::cpu::SLUICE_ISA {

void matmul(const MatmulCall& call, Share share) {
  if (call.x_format == ActFormat::q8) matmul_q8(call, share);
  else matmul_f32(call, share);
}

}  // namespace sluice::cpu::SLUICE_ISA
