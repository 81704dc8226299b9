// What a token and a prompt cost at best on a machine with a GPU, from bytes and rates alone: a few lines that share
// nothing with the planner, its cost model or the executor, for these to be judged by.
#pragma once

#include "bench/model_shape.h"
#include "core/machine.h"

namespace sluice::bench {

struct IdealCase {
  uint64_t vram = 0, ram = 0;       // bytes that may be used, of a GPU's behind its context
  uint32_t context = 0, depth = 0;  // tokens that KV is held for, and that are held
};

// All of the VRAM holds weights and KV. What is left is divided so that the CPU, reading its share, and the link,
// bringing the other, end together; what does not fit RAM comes from the disk meanwhile. The CPU's share is whole
// FFNs, each with two hand-overs.
double ideal_token_s(const ModelShape& shape, const Machine& machine, const IdealCase& c);

// All is computed by the GPU; what it does not hold comes over the link once, or from the disk, behind the arithmetic.
double ideal_prompt_s(const ModelShape& shape, const Machine& machine, const IdealCase& c, uint32_t n);

}  // namespace sluice::bench
