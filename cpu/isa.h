// Which instruction sets this machine has, and the kernels compiled for each.
#pragma once

#include "cpu/kernels/kernels.h"

namespace sluice::cpu {

// avx2: with FMA and F16C. avx512: F, BW, DQ, VL and VNNI, and all of avx2.
enum class Isa : uint8_t { scalar, avx2, avx512 };

// Whether processor and operating system run it.
bool supported(Isa isa);

// `isa` must be supported.
const KernelTable& kernels(Isa isa);

// The widest one that is supported.
Isa best_isa();

// Whether the processor has AMX with bf16. That the operating system lets programs use it is another matter.
bool has_amx_bf16();

}  // namespace sluice::cpu
