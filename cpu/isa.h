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

// Whether there is AMX with 8-bit integers, and Linux lets this process use it, which is asked for the first time.
bool may_use_amx_int8();

namespace amx {
void multiply_wide8(const TileCall& call);  // where there is; as KernelTable::multiply_wide8
}

}  // namespace sluice::cpu
