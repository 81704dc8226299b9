#include "engine/doctor/facts.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "core/bytes.h"
#include "core/error.h"
#include "cpu/topology.h"
#include "engine/system.h"
#include "gpu/probe.h"
#include "storage/open_store.h"

namespace sluice::engine {
namespace {

constexpr uint64_t enough_memlock = 64 * MiB;

std::string contents(const char* path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// The number behind "Name:" in /proc/meminfo; 0 if it is not there.
uint64_t meminfo(const std::string& text, const std::string& name) {
  const size_t at = text.find("\n" + name + ":");
  return at == std::string::npos ? 0 : std::strtoull(text.c_str() + at + name.size() + 2, nullptr, 10);
}

bool may_lock_all() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (syscall(SYS_capget, &header, data) != 0) return false;
  return (data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK)) != 0;
}

uint64_t memlock_limit() {
  rlimit limit{};
  if (may_lock_all() || getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
  return limit.rlim_cur;
}

void add_alignment(const std::string& path, DiskHealth& disk) {
  struct statx st;
  if (statx(AT_FDCWD, path.c_str(), 0, STATX_DIOALIGN, &st) != 0 || (st.stx_mask & STATX_DIOALIGN) == 0) return;
  disk.memory_alignment = st.stx_dio_mem_align;
  disk.offset_alignment = st.stx_dio_offset_align;
}

void add_system_findings(const HealthReport& r, std::vector<Finding>& out) {
  const MemoryHealth& m = r.memory;
  if (m.transparent_huge_pages != "always" && m.transparent_huge_pages != "madvise")
    out.push_back({"transparent huge pages are off, so that reading weights costs look-ups of small pages",
                   "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"});
  if (m.memlock < enough_memlock)
    out.push_back({fmt::format("only {} of memory may be locked, so that reads cannot use registered buffers",
                               format_size(m.memlock)),
                   "ulimit -l unlimited; for good, '* - memlock unlimited' in /etc/security/limits.conf, or "
                   "LimitMEMLOCK=infinity in a systemd unit, or --ulimit memlock=-1 in a container"});
  if (r.cpu.quota > 0 && r.cpu.quota < r.cpu.cores)
    out.push_back({fmt::format("a cgroup grants {:.1f} CPUs of {} cores", r.cpu.quota, r.cpu.cores),
                   "raise the container's CPU limit, or give it whole cores (cpuset)"});
  if (r.cpu.numa_nodes > 1)
    out.push_back({fmt::format("memory lies on {} NUMA nodes, and nothing is placed by node", r.cpu.numa_nodes),
                   "bind the process to one node: numactl --cpunodebind=0 --membind=0 sluice …"});
}

}  // namespace

std::string chosen_word(const std::string& text) {
  const size_t open = text.find('['), close = text.find(']', open == std::string::npos ? 0 : open);
  return open == std::string::npos || close == std::string::npos ? "" : text.substr(open + 1, close - open - 1);
}

Result<CpuHealth> cpu_facts(const cpu::CpuDevice& device, const cpu::CpuOptions& options) {
  SLUICE_ASSIGN_OR_RETURN(const cpu::Topology topology, cpu::read_topology());
  CpuHealth health;
  health.name = cpu_name();
  health.isa = cpu::kernels(options.isa).isa;
  health.prompts = device.library();
  health.cores = static_cast<uint32_t>(topology.cores.size());
  health.hardware_threads = topology.n_hardware_threads;
  health.threads = device.n_threads();
  health.numa_nodes = topology.n_numa_nodes;
  health.l1d_bytes = topology.l1d_bytes;
  health.l2_bytes = topology.l2_bytes;
  health.l3_bytes = topology.l3_bytes;
  health.quota = topology.cpu_quota;
  return health;
}

GpuHealth gpu_facts() {
  const gpu::Probe probe = gpu::probe();
  GpuHealth health;
  health.built = probe.built;
  health.available = probe.available;
  health.reason = probe.reason;
  for (const gpu::DeviceFacts& device : probe.devices) health.devices.push_back(device.describe());
  return health;
}

MemoryHealth memory_facts() {
  const std::string info = "\n" + contents("/proc/meminfo");
  MemoryHealth health;
  health.total = meminfo(info, "MemTotal") * KiB;
  health.available = available_memory();
  health.transparent_huge_pages = chosen_word(contents("/sys/kernel/mm/transparent_hugepage/enabled"));
  health.reserved_huge_pages = meminfo(info, "HugePages_Total");
  health.huge_page_bytes = meminfo(info, "Hugepagesize") * KiB;
  health.memlock = memlock_limit();
  return health;
}

Result<DiskHealth> disk_facts(const std::string& path) {
  DiskHealth disk;
  disk.path = path;
  storage::StoreOptions options;
  options.mode = storage::LoadMode::direct;
  std::vector<std::string> no_uring;
  std::string no_direct;
  options.warn = [&no_direct](const std::string& line) { no_direct = line; };
  SLUICE_ASSIGN_OR_RETURN(auto store, storage::open_store(options, &no_uring));
  SLUICE_RETURN_IF_ERROR(store->open(path).status());
  disk.store = store->describe();
  disk.io_uring = no_uring.empty();
  disk.direct = no_direct.empty();
  disk.why_not = !disk.io_uring ? no_uring.front() : no_direct;
  add_alignment(path, disk);
  return disk;
}

std::vector<Finding> findings(const HealthReport& report) {
  std::vector<Finding> out;
  if (!report.disk.io_uring)
    out.push_back({"files are read with a pool of threads instead of io_uring", report.disk.why_not});
  if (!report.disk.direct)
    out.push_back(
        {"files are read through the page cache",
         report.disk.io_uring ? report.disk.why_not : "keep models on a local file system such as ext4 or xfs"});
  add_system_findings(report, out);
  return out;
}

}  // namespace sluice::engine
