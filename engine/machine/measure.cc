#include "engine/machine/measure.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "cpu/topology.h"
#include "engine/gpus.h"
#include "engine/machine/beside.h"
#include "engine/machine/machine_file.h"
#include "engine/machine/measure_disk.h"
#include "engine/machine/measure_model.h"
#include "engine/machine/timer.h"
#include "engine/system.h"
#include "gpu/measure.h"
#include "storage/page_cache.h"

namespace sluice::engine {
namespace {

constexpr uint64_t least_weights = 40 * MiB, enough_weights = 160 * MiB, most_weights = GiB, tile_bytes = 8 * MiB;
constexpr uint32_t cols = 4096, many_tokens = 64, more_tokens = 512;
constexpr double few = 0.05;  // parts of a file that do not matter
constexpr std::array types = {DType::f32,  DType::f16,  DType::bf16, DType::q4_0, DType::q4_1,
                              DType::q5_0, DType::q5_1, DType::q8_0, DType::q4_k, DType::q6_k};

// Rows that are work for all threads.
uint32_t some_rows(const cpu::CpuDevice& device) {
  return std::clamp(device.n_threads() * cpu::DenseProduct::row_unit, 512u, 2048u);
}

Status measure_type(KernelTimer& timer, DType type, Compute compute, double& gb_s, double& gflops) {
  const auto rows = static_cast<uint32_t>(tile_bytes / row_bytes(type, cols) / 16 * 16);
  SLUICE_ASSIGN_OR_RETURN(const double one, timer.time_product(type, compute, rows, cols, 1));
  gb_s = static_cast<double>(rows * row_bytes(type, cols)) / one * 1e-9;
  const uint32_t some = some_rows(timer.device());
  SLUICE_ASSIGN_OR_RETURN(const double many, timer.time_product(type, compute, some, cols, many_tokens));
  gflops = 2.0 * some * cols * many_tokens / many * 1e-9;
  return {};
}

// The rate of tokens beyond `many_tokens`, where those share what is done once for all.
Status measure_more(KernelTimer& timer, DeviceRates& rates) {
  constexpr DType type = DType::q4_k;
  const uint32_t rows = some_rows(timer.device());
  SLUICE_ASSIGN_OR_RETURN(const double many, timer.time_product(type, Compute::fast, rows, cols, many_tokens));
  SLUICE_ASSIGN_OR_RETURN(const double more, timer.time_product(type, Compute::fast, rows, cols, more_tokens));
  if (more <= many) return {};
  rates.many_tokens = many_tokens;
  rates.more_gflops = 2.0 * rows * cols * (more_tokens - many_tokens) / (more - many) * 1e-9;
  return {};
}

// What part of `path` will be read from the page cache.
double cached_part(const MachineRequest& r) {
  if (r.direct || r.path.empty()) return 0;
  const auto cached = storage::cached_fraction(r.path);
  return !cached.ok() || *cached < few ? 0 : *cached > 1 - few ? 1 : *cached;
}

void put(Machine& machine, TierRates tier) {
  for (TierRates& t : machine.tiers)
    if (t.id == tier.id) {
      t = std::move(tier);
      return;
    }
  machine.tiers.push_back(std::move(tier));
}

// The disk and the page cache, as far as they will be read; both are kept once they were measured.
Status add_tier(const MachineRequest& r, bool hot, uint64_t weights, cpu::CpuDevice& device, Machine& machine,
                bool& changed) {
  const std::string id = hot ? "page cache" : "disk";
  if (r.path.empty() || machine.tier(id) != nullptr) return {};
  const auto mode = hot ? storage::LoadMode::buffered : storage::LoadMode::direct;
  SLUICE_ASSIGN_OR_RETURN(TierRates tier, measure_tier(id, r.path, mode, 0.5, device, weights));
  put(machine, std::move(tier));
  changed = true;
  return {};
}

Status add_cpu(uint64_t weights, cpu::CpuDevice& device, Machine& machine, bool& changed) {
  if (!machine.devices.empty()) return {};
  SLUICE_ASSIGN_OR_RETURN(DeviceRates rates, measure_cpu(device, weights));
  machine.name = cpu_name();
  machine.build = build_id();
  put(machine, {"host", 0, rates.memory_gb_s, 0, 0, 1});
  machine.devices.push_back(std::move(rates));
  changed = true;
  return {};
}

// The link and the host's products, which both read the host's memory, while both run, with the threads that a run has
// then: with more, what copies would cost the products a core. Without memory that may be pinned it stays unknown.
Status measure_link_beside(int gpu, uint64_t weights, uint32_t n_threads, LinkRates& link) {
  constexpr double seconds = 0.2;
  cpu::CpuOptions options;
  SLUICE_ASSIGN_OR_RETURN(const cpu::Topology topology, cpu::read_topology());
  options.n_threads = std::min(n_threads, threads_beside_gpus(topology.default_threads()));
  SLUICE_ASSIGN_OR_RETURN(const auto device, cpu::CpuDevice::create(options));
  weights /= 2;  // twice
  SLUICE_ASSIGN_OR_RETURN(const auto copied, cpu::HostMemory::create(weights, true));
  if (!gpu::link_rate(gpu, *copied, 0.001).ok()) return {};
  SLUICE_ASSIGN_OR_RETURN(const Beside beside, measure_beside(*device, weights, seconds,
                                                              [&] { return gpu::link_rate(gpu, *copied, seconds); }));
  link.beside_gb_s = std::min(beside.other, link.gb_s);
  link.compute_beside = beside.compute;
  return {};
}

// Each GPU with its memory and its links, once.
Status add_gpus(const MachineRequest& r, uint64_t weights, uint32_t n_threads, Machine& machine, bool& changed) {
  for (const int device : r.gpus) {
    if (machine.device(gpu_id(device)) != nullptr) continue;
    SLUICE_ASSIGN_OR_RETURN(gpu::GpuRates rates, gpu::measure(device));
    SLUICE_RETURN_IF_ERROR(measure_link_beside(device, weights, n_threads, rates.to_device));
    machine.devices.push_back(std::move(rates.device));
    put(machine, std::move(rates.memory));
    machine.links.push_back(std::move(rates.to_device));
    machine.links.push_back(std::move(rates.to_host));
    changed = true;
  }
  return {};
}

// The rate at which bytes come of which `part` have one rate and the others another.
double mixed(double part, double one, double other) { return 1 / (part / one + (1 - part) / other); }

// "disk" is what the plan streams from: of a file that is partly in the page cache, both.
void read_from_page_cache(Machine& machine, double part) {
  const TierRates *hot = machine.tier("page cache"), *cold = machine.tier("disk");
  if (part == 0 || hot == nullptr) return;
  TierRates both = *hot;
  both.id = "disk";
  if (part < 1 && cold != nullptr && cold->read_gb_s > 0 && hot->read_gb_s > 0) {
    both.read_gb_s = mixed(part, hot->read_gb_s, cold->read_gb_s);
    const double from_cache = part * both.read_gb_s / hot->read_gb_s;  // of the time
    if (cold->read_beside_gb_s > 0 && hot->read_beside_gb_s > 0)
      both.read_beside_gb_s = mixed(part, hot->read_beside_gb_s, cold->read_beside_gb_s);
    both.compute_beside = from_cache * hot->compute_beside + (1 - from_cache) * cold->compute_beside;
  }
  put(machine, std::move(both));
}

}  // namespace

std::string machine_cache_path(const cpu::CpuDevice& device, const std::string& path) {
  struct stat st {};
  if (!path.empty()) stat(path.c_str(), &st);
  const std::string directory = cache_directory();
  if (directory.empty()) return "";
  const std::string what = cpu_name() + device.describe();
  return fmt::format("{}/machine-{:08x}-{}-v2.json", directory, std::hash<std::string>()(what) & 0xffffffff,
                     static_cast<uint64_t>(st.st_dev));
}

uint64_t bytes_to_measure_with(uint64_t memory) {
  const auto topology = cpu::read_topology();
  const uint64_t cached = topology.ok() ? topology->l3_bytes : 0;
  return std::clamp(memory, least_weights, std::clamp(3 * cached, enough_weights, most_weights));
}

Result<DeviceRates> measure_cpu(cpu::CpuDevice& device, uint64_t weights) {
  DeviceRates rates;
  rates.id = device.name();
  rates.detail = device.describe();
  rates.threads = device.n_threads();
  // Outputs are widest for the type with the narrowest rows.
  const auto most_rows = static_cast<uint32_t>(tile_bytes / row_bytes(DType::q4_0, cols));
  const uint64_t scratch =
      std::max(product_scratch(most_rows, cols, 1), product_scratch(some_rows(device), cols, more_tokens));
  SLUICE_ASSIGN_OR_RETURN(KernelTimer timer, KernelTimer::create(device, weights, scratch));
  for (const DType type : types) {
    SLUICE_RETURN_IF_ERROR(
        measure_type(timer, type, Compute::fast, rates.matvec_gb_s[type], rates.matmul_gflops[type]));
    SLUICE_RETURN_IF_ERROR(
        measure_type(timer, type, Compute::f32, rates.matvec_f32_gb_s[type], rates.matmul_f32_gflops[type]));
    rates.memory_gb_s = std::max(rates.memory_gb_s, rates.matvec_gb_s[type]);
  }
  if (!device.library().empty()) SLUICE_RETURN_IF_ERROR(measure_more(timer, rates));
  SLUICE_ASSIGN_OR_RETURN(const double call, timer.time_product(DType::q8_0, Compute::fast, 64, 256, 1));
  rates.call_us = call * 1e6;
  return rates;
}

Result<Machine> this_machine(const MachineRequest& r, cpu::CpuDevice& device) {
  const double hot = cached_part(r);
  if (!r.machine_file.empty()) {
    SLUICE_ASSIGN_OR_RETURN(Machine written, read_machine(r.machine_file));
    bool added = false;
    SLUICE_RETURN_IF_ERROR(add_gpus(r, bytes_to_measure_with(r.memory), device.n_threads(), written, added));
    return written;
  }
  const std::string cached = machine_cache_path(device, r.path);
  Machine machine;
  if (!cached.empty())
    if (auto read = read_machine(cached); read.ok() && read->build == build_id()) machine = std::move(*read);
  bool changed = false;
  const uint64_t weights = bytes_to_measure_with(r.memory);
  SLUICE_RETURN_IF_ERROR(add_cpu(weights, device, machine, changed));
  if (hot < 1) SLUICE_RETURN_IF_ERROR(add_tier(r, false, weights, device, machine, changed));
  if (hot > 0) SLUICE_RETURN_IF_ERROR(add_tier(r, true, weights, device, machine, changed));
  if (r.graph != nullptr) {
    SLUICE_ASSIGN_OR_RETURN(const bool added,
                            measure_model(*r.graph, r.compute, weights, device, machine.devices.front()));
    changed |= added;
  }
  SLUICE_RETURN_IF_ERROR(add_gpus(r, weights, device.n_threads(), machine, changed));
  if (changed && !cached.empty()) write_machine(machine, cached).ignore();  // measured again next time
  read_from_page_cache(machine, hot);
  return machine;
}

}  // namespace sluice::engine
