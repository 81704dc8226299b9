#include "cpu/topology.h"

#include <hwloc.h>
#include <sched.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <string>

#include "core/error.h"

namespace sluice::cpu {
namespace {

struct TopologyDestroy {
  void operator()(hwloc_topology* t) const { hwloc_topology_destroy(t); }
};
using TopologyPtr = std::unique_ptr<hwloc_topology, TopologyDestroy>;

Result<TopologyPtr> load() {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return error(Code::unavailable, "hwloc cannot start: out of memory");
  TopologyPtr topology(raw);
  if (hwloc_topology_load(raw) != 0)
    return error(Code::unavailable, "hwloc cannot read this machine's topology; try lstopo to see why");
  return topology;
}

// The threads that the process is bound to; all, where that cannot be told.
bool in_affinity(const cpu_set_t* affinity, uint32_t os_index) {
  return affinity == nullptr || (os_index < CPU_SETSIZE && CPU_ISSET(os_index, affinity));
}

// Usable hardware threads of `core`; the first one's number in `first`.
uint32_t count_usable(hwloc_topology* topology, hwloc_obj_t core, const cpu_set_t* affinity, uint32_t& first) {
  const hwloc_const_cpuset_t allowed = hwloc_topology_get_allowed_cpuset(topology);
  uint32_t n = 0;
  int os_index = -1;
  while ((os_index = hwloc_bitmap_next(core->cpuset, os_index)) >= 0) {
    const auto pu = static_cast<uint32_t>(os_index);
    if (!hwloc_bitmap_isset(allowed, pu) || !in_affinity(affinity, pu)) continue;
    if (n++ == 0) first = pu;
  }
  return n;
}

void read_cores(hwloc_topology* topology, Topology& out) {
  cpu_set_t set;
  const cpu_set_t* affinity = ::sched_getaffinity(0, sizeof set, &set) == 0 ? &set : nullptr;
  out.n_hardware_threads = 0;
  hwloc_obj_t core = nullptr;
  // Some virtual machines show no cores: then each hardware thread counts as one.
  const bool has_cores = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE) > 0;
  const hwloc_obj_type_t type = has_cores ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
  while ((core = hwloc_get_next_obj_by_type(topology, type, core)) != nullptr) {
    uint32_t first = 0;
    const uint32_t n = count_usable(topology, core, affinity, first);
    if (n > 0) out.cores.push_back(first);
    out.n_hardware_threads += n;
  }
  if (out.cores.empty()) {
    out.cores.push_back(0);
    out.n_hardware_threads = 1;
  }
}

bool holds_usable_core(hwloc_obj_t object, const Topology& t) {
  return std::any_of(t.cores.begin(), t.cores.end(),
                     [&](uint32_t pu) { return hwloc_bitmap_isset(object->cpuset, pu) != 0; });
}

void read_caches(hwloc_topology* topology, Topology& out) {
  const auto each = [&](hwloc_obj_type_t type, auto&& use) {
    for (hwloc_obj_t o = nullptr; (o = hwloc_get_next_obj_by_type(topology, type, o)) != nullptr;)
      if (holds_usable_core(o, out)) use(o->attr->cache.size);
  };
  each(HWLOC_OBJ_L1CACHE, [&](uint64_t bytes) { out.l1d_bytes = bytes; });
  each(HWLOC_OBJ_L2CACHE, [&](uint64_t bytes) { out.l2_bytes = bytes; });
  each(HWLOC_OBJ_L3CACHE, [&](uint64_t bytes) { out.l3_bytes += bytes; });
}

// "max 100000" or "150000 100000": microseconds granted in each period.
double read_cpu_max(const std::string& path) {
  std::ifstream file(path);
  double granted = 0, period = 0;
  if (!(file >> granted >> period) || granted <= 0 || period <= 0) return 0;
  return granted / period;
}

// The line "0::/path" of /proc/self/cgroup.
std::string own_group() {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);)
    if (line.rfind("0::", 0) == 0) return line.substr(3);
  return "/";
}

}  // namespace

double read_cpu_quota(const char* root, const char* group) {
  double least = 0;
  for (std::string path = group;;) {
    const double quota = read_cpu_max(root + path + "/cpu.max");
    if (quota > 0 && (least == 0 || quota < least)) least = quota;
    const size_t slash = path.rfind('/');
    if (path.empty() || slash == std::string::npos) return least;
    path.resize(slash);
  }
}

uint32_t Topology::default_threads() const {
  auto n = static_cast<uint32_t>(std::max<size_t>(cores.size(), 1));
  // A part of a CPU is no room for a thread that the others wait for.
  if (cpu_quota > 0) n = std::min(n, static_cast<uint32_t>(std::max(cpu_quota, 1.0)));
  return n;
}

Result<Topology> read_topology() {
  SLUICE_ASSIGN_OR_RETURN(const TopologyPtr topology, load());
  Topology out;
  read_cores(topology.get(), out);
  read_caches(topology.get(), out);
  out.n_numa_nodes = static_cast<uint32_t>(std::max(hwloc_get_nbobjs_by_type(topology.get(), HWLOC_OBJ_NUMANODE), 1));
  out.cpu_quota = read_cpu_quota("/sys/fs/cgroup", own_group().c_str());
  return out;
}

}  // namespace sluice::cpu
