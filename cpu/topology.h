// Topology: the cores that this process may use, and their caches.
#pragma once

#include <cstdint>
#include <vector>

#include "sluice/status.h"

namespace sluice::cpu {

struct Topology {
  // The first usable hardware thread (its number for the OS) of each usable physical core, in the order
  // in which a team fills them. Usable: allowed by the cgroup's cpuset and by the process's affinity.
  std::vector<uint32_t> cores;
  uint32_t n_hardware_threads = 1;  // usable ones
  uint32_t n_numa_nodes = 1;
  uint64_t l1d_bytes = 0;  // of one core; 0: not known
  uint64_t l2_bytes = 0;   // likewise, or of the cores that share it
  uint64_t l3_bytes = 0;   // of all usable cores together
  double cpu_quota = 0;    // CPUs' worth of time that the cgroup grants; 0: no limit

  // One thread for each usable physical core, within the quota; at least 1.
  uint32_t default_threads() const;
};

// Takes some milliseconds. unavailable if hwloc cannot read the machine.
Result<Topology> read_topology();

// The tightest limit in CPUs of a cgroup v2 group and its parents, 0 for none. `root` is where cgroups
// are mounted, `group` the path of the process's group in it ("/", "/user.slice/x").
double read_cpu_quota(const char* root, const char* group);

}  // namespace sluice::cpu
