// How fast files are read, alone and beside a device that computes.
#pragma once

#include <string>

#include "core/machine.h"
#include "cpu/cpu_device.h"
#include "storage/store_options.h"

namespace sluice::engine {

// Reads `path` for `seconds` as streamed weights are read: GB/s.
Result<double> read_rate(const std::string& path, storage::LoadMode mode, double seconds);

// The tier `id` as read in that mode: alone, then while `device` multiplies with `weights` bytes of weights.
// Takes twice `seconds`, and 64 MiB beside the weights.
Result<TierRates> measure_tier(const std::string& id, const std::string& path, storage::LoadMode mode, double seconds,
                               cpu::CpuDevice& device, uint64_t weights);

}  // namespace sluice::engine
