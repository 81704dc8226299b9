// The profiler's Ranges of this build: NVTX, which Nsight Systems and Nsight Compute show, where the CUDA toolkit has
// its headers; absent/ has none. They need neither a GPU nor a driver, and cost nothing without a tool.
#pragma once

#include "core/ranges.h"

namespace sluice::gpu {

// Lives as long as the process; null in a build without NVTX.
Ranges* profiler_ranges();

}  // namespace sluice::gpu
