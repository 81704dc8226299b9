// A quick measurement of this machine: a second or two, kept in the user's cache directory.
#pragma once

#include <string>
#include <vector>

#include "core/graph.h"
#include "core/machine.h"
#include "cpu/cpu_device.h"

namespace sluice::engine {

// Bytes of weights with which the others here measure: some times what the caches hold, which in a virtual machine may
// be those of all its host, but `memory` at most.
uint64_t bytes_to_measure_with(uint64_t memory);

// Rates of products for every type, of memory, and of a kernel call, on `device`. Takes about a second,
// and `weights` bytes of memory.
Result<DeviceRates> measure_cpu(cpu::CpuDevice& device, uint64_t weights);

// What a machine is wanted for.
struct MachineRequest {
  std::string machine_file;      // rates that were written before; nothing is measured then
  std::string path;              // the file that will be read; empty: no disk is measured
  bool direct = false;           // it will be read around the page cache, whatever is in that
  const Graph* graph = nullptr;  // the model, or null for the rates alone
  Compute compute = Compute::fast;
  uint64_t memory = 0;    // that measuring may take, as it will be taken again for the run
  std::vector<int> gpus;  // as CUDA counts them
};

// From the file that is named, otherwise measured and cached. The tier "disk" reads at the rates that fit
// where the file is now: on the disk or in the page cache, unless `direct`.
Result<Machine> this_machine(const MachineRequest& request, cpu::CpuDevice& device);

// Where the measurements for this device and the disk of `path` are kept; empty where there is no cache.
std::string machine_cache_path(const cpu::CpuDevice& device, const std::string& path);

}  // namespace sluice::engine
