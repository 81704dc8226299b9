// measure(): what a GPU and its link give, for the plan: a second or two, most of it the driver's start.
//
// Nothing of CUDA is in this header; without a toolkit gpu/absent/ implements it. Threads: any, but nothing else
// should run on the device meanwhile.
#pragma once

#include <cstdint>

#include "core/machine.h"
#include "core/memory.h"
#include "sluice/status.h"

namespace sluice::gpu {

struct GpuRates {
  // Named "gpu 0" by the number of the device, as its memory is. Products with many tokens are those of a prompt of
  // `tokens`, weights that come as they are stored; call_us is a launch's share of a stream of empty kernels.
  DeviceRates device;
  TierRates memory;
  LinkRates to_device, to_host;  // pinned host memory ("host"), 8 MiB at a time
};

struct MeasureOptions {
  uint32_t rows = 8192, cols = 4096;  // of the matrix that is multiplied; cols a multiple of 256
  uint32_t tokens = 512, more_tokens = 2048, tokens_f32 = 32;
  uint64_t memory_bytes = uint64_t{512} << 20;  // read to find the memory's rate; at least a matrix in f32
  uint64_t copy_bytes = uint64_t{8} << 20;
  uint32_t repeats = 5;
};

// Takes some 800 MiB of the device for the time being. over_budget without these, unavailable without the device.
Result<GpuRates> measure(int device, const MeasureOptions& options = {});

// GB/s of copies from `host`, which is pinned for the time being, to the device for so many seconds, one part of it after
// the other: for what else uses the host's memory meanwhile. unavailable where pinning is refused or the device is not
// there.
Result<double> link_rate(int device, Memory& host, double seconds);

}  // namespace sluice::gpu
