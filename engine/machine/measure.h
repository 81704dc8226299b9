// A quick measurement of this machine: a second or two, kept in the user's cache directory.
#pragma once

#include <string>

#include "core/machine.h"
#include "cpu/cpu_device.h"

namespace sluice::engine {

// Rates of products for every type, of memory, and of a kernel call, on `device`. Takes about a second
// and up to 48 MiB of memory, given back before it returns.
Result<DeviceRates> measure_cpu(cpu::CpuDevice& device);

// Reads `path` directly for a fraction of a second, as the streaming of weights would: GB/s.
Result<double> measure_disk(const std::string& path);
// The same through the page cache, for a file that is in it.
Result<double> measure_page_cache(const std::string& path);

// The machine as far as running the model at `path` is concerned: from `machine_file` if that is given,
// otherwise measured and cached. The tier "disk" reads at the rate that fits where the file is now: on
// the disk or in the page cache, unless `direct`.
Result<Machine> this_machine(const std::string& machine_file, const std::string& path, bool direct,
                             cpu::CpuDevice& device);

}  // namespace sluice::engine
