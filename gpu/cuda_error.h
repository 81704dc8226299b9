// CUDA's errors as Status values.
//
// memory: over_budget; a device that is missing or has stopped working: unavailable; what the device or the
// driver cannot do: unsupported; the rest, which means a mistake in our calls: internal.
// Threads: any; to_status() also clears CUDA's last error of the calling thread, so that a failure which was
// told here is not found again by somebody else.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <string_view>

#include "sluice/status.h"

namespace sluice::gpu {

// ok for cudaSuccess, else "doing: text (cudaErrorName)".
Status to_status(cudaError_t code, std::string_view doing);
// The driver's own codes, of which the common ones are the same numbers.
Status to_status(CUresult code, std::string_view doing);

}  // namespace sluice::gpu
