// What kernels may use beyond plain C++: thread indices, barriers, warp collectives, shared memory, asynchronous
// copies, tensor cores, vector access, atomics. Everything is in namespace sluice::gpu.
//
// Two definitions of the same names: CUDA's, and a host one for tests, where one fiber runs for each CUDA thread
// (tests/standin). This is the only place in kernels where the two differ; docs/gpu.md has the rules.
#pragma once

#if defined(__CUDACC__)
#include "gpu/kernels/intrinsics_cuda.h"
#else
#include <sluice_standin/intrinsics.h>
#endif
