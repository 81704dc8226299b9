// Attention of prompts on tensor cores: another kernel for some of the calls of attention.cu, with bits of its own.
#pragma once

#include <cuda_runtime.h>

#include "core/kernel.h"
#include "sluice/status.h"

namespace sluice::gpu {

// f16 pages, no tree, heads of a multiple of 8 values up to 256.
bool attention_prompt_serves(const AttentionCall& call);
Status attention_prompt(cudaStream_t stream, const AttentionCall& call, uint32_t n_sms);

}  // namespace sluice::gpu
