#include "cpu/kernels/matmul.h"

#include "cpu/kernels/declare.h"

namespace sluice::cpu::SLUICE_ISA {

void matmul(const MatmulCall& call, Share share) {
  switch (call.x_format) {
    case ActFormat::q8: return matmul_q8(call, share);
    case ActFormat::f32: return matmul_f32(call, share);
    case ActFormat::bf16:
    case ActFormat::wide8: break;  // cpu/dense_product.h
  }
  __builtin_trap();
}

}  // namespace sluice::cpu::SLUICE_ISA
