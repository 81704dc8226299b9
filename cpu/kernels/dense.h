// Activations of ActFormat::bf16; quantize() chooses. The layout is that of the library behind cpu/tile_product.h: a
// group of act_group tokens is cols / 2 rows of act_group pairs, a pair being two columns of a token.
#pragma once

#include "cpu/kernels/matmul.h"

namespace sluice::cpu::SLUICE_ISA {

// cols is a multiple of 32. Tokens of the last group that are not there become zeros.
void pack_bf16(const QuantizeCall& call, Share share);

}  // namespace sluice::cpu::SLUICE_ISA
