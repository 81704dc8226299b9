// Kernels that only show what the device can do: what others are measured against.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "sluice/status.h"

namespace sluice::gpu {

// Reads `bytes` (a multiple of 16) from `memory`; `out` gets one word.
Status read_memory(cudaStream_t stream, const std::byte* memory, uint64_t bytes, uint32_t n_sms, uint32_t* out);

// A launch, and nothing else.
Status do_nothing(cudaStream_t stream);

}  // namespace sluice::gpu
