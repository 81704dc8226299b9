// What the system tells without measuring, and what is wrong with it.
#pragma once

#include <string>
#include <vector>

#include "cpu/cpu_device.h"
#include "sluice/doctor.h"

namespace sluice::engine {

Result<CpuHealth> cpu_facts(const cpu::CpuDevice& device, const cpu::CpuOptions& options);
MemoryHealth memory_facts();
GpuHealth gpu_facts();

// How a store reads the file at `path`, and what direct I/O on it wants.
Result<DiskHealth> disk_facts(const std::string& path);

// The word in brackets of "always [madvise] never"; empty if there is none.
std::string chosen_word(const std::string& text);

// What to do about each thing that costs speed, most costly first.
std::vector<Finding> findings(const HealthReport& report);

}  // namespace sluice::engine
