#include "engine/machine/measure.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "core/error.h"
#include "core/trace.h"
#include "cpu/host_memory.h"
#include "engine/machine/machine_file.h"
#include "engine/system.h"
#include "storage/open_store.h"
#include "storage/page_cache.h"

namespace sluice::engine {
namespace {

constexpr uint64_t weights_bytes = 40 * MiB;  // beyond the last-level cache of one core complex
constexpr uint32_t cols = 4096, many_tokens = 64;
constexpr std::array types = {DType::f32,  DType::f16,  DType::bf16, DType::q4_0, DType::q4_1,
                              DType::q5_0, DType::q5_1, DType::q8_0, DType::q4_k, DType::q6_k};

double seconds_since(uint64_t start) { return static_cast<double>(now_ns() - start) * 1e-9; }

// Times products of one block of memory, whose content is harmless in every type.
class ProductTimer {
 public:
  static Result<ProductTimer> create(cpu::CpuDevice& device) {
    ProductTimer timer(device);
    SLUICE_ASSIGN_OR_RETURN(timer.memory_, cpu::HostMemory::create(weights_bytes + 8 * MiB));
    std::memset(timer.memory_->base(), 0x11, weights_bytes + 8 * MiB);
    return timer;
  }

  // Seconds that one product of `rows` rows with `tokens` tokens takes: the best of three.
  Result<double> time(DType type, Compute compute, uint32_t rows, uint32_t tokens) {
    const ActFormat format = device_->act_format(type, compute);
    std::byte* x = memory_->base() + weights_bytes;
    auto* out = reinterpret_cast<float*>(x + 2 * MiB);
    double best = 1e9;
    for (int round = 0; round < 3; ++round) {
      SLUICE_RETURN_IF_ERROR(device_->queue().signal().wait());
      const uint64_t start = now_ns();
      device_->queue().launch(
          MatmulCall{memory_->base(), type, rows, cols, x, format, tokens, out, rows, nullptr, false});
      SLUICE_RETURN_IF_ERROR(device_->queue().signal().wait());
      best = std::min(best, seconds_since(start));
    }
    return best;
  }

  // What a kernel costs beyond its bytes.
  Result<double> time_call() {
    constexpr int n = 400;
    auto* x = reinterpret_cast<float*>(memory_->base() + weights_bytes);
    const uint64_t start = now_ns();
    for (int i = 0; i < n; ++i) device_->queue().launch(RmsNormCall{x, nullptr, 1e-5f, 4, 512, x + 4096});
    SLUICE_RETURN_IF_ERROR(device_->queue().signal().wait());
    return seconds_since(start) / n;
  }

 private:
  explicit ProductTimer(cpu::CpuDevice& device) : device_(&device) {}
  cpu::CpuDevice* device_;
  std::unique_ptr<cpu::HostMemory> memory_;
};

Status measure_type(ProductTimer& timer, DType type, Compute compute, double& gb_s, double& gflops) {
  const auto rows = static_cast<uint32_t>(weights_bytes / row_bytes(type, cols) / 16 * 16);
  SLUICE_ASSIGN_OR_RETURN(const double one, timer.time(type, compute, rows, 1));
  gb_s = static_cast<double>(rows * row_bytes(type, cols)) / one * 1e-9;
  constexpr uint32_t some_rows = 512;
  SLUICE_ASSIGN_OR_RETURN(const double many, timer.time(type, compute, some_rows, many_tokens));
  gflops = 2.0 * some_rows * cols * many_tokens / many * 1e-9;
  return {};
}

Result<double> read_rate(const std::string& path, storage::LoadMode mode) {
  constexpr uint64_t chunk = 2 * MiB;
  constexpr size_t in_flight = 8;
  storage::StoreOptions options;
  options.mode = mode;
  SLUICE_ASSIGN_OR_RETURN(auto store, storage::open_store(options, nullptr));
  SLUICE_ASSIGN_OR_RETURN(const FileId file, store->open(path));
  SLUICE_ASSIGN_OR_RETURN(auto memory, cpu::HostMemory::create(in_flight * chunk));
  const uint64_t size = store->size(file) / io_unit * io_unit;
  if (size == 0) return error(Code::corrupt, "{}: the file is empty", path);

  std::array<Event, in_flight> events;
  uint64_t done = 0;
  const uint64_t start = now_ns();
  for (size_t i = 0; done < size && seconds_since(start) < 0.25; ++i) {
    SLUICE_RETURN_IF_ERROR(events[i % in_flight].wait());
    const uint64_t bytes = std::min(chunk, size - done);
    const IoRequest request{IoRequest::Op::read, {file, done, bytes}, memory->base() + i % in_flight * chunk};
    store->submit({&request, 1}, {&events[i % in_flight], 1});
    done += bytes;
  }
  for (const Event& event : events) SLUICE_RETURN_IF_ERROR(event.wait());
  return static_cast<double>(done) / seconds_since(start) * 1e-9;
}

// Distinguishes the cached measurements: CPU, ISA, threads and disk.
std::string cache_path(const cpu::CpuDevice& device, const std::string& path) {
  struct stat st {};
  stat(path.c_str(), &st);
  const std::string directory = cache_directory();
  if (directory.empty()) return "";
  const std::string what = cpu_name() + device.describe();
  return fmt::format("{}/machine-{:08x}-{}-v2.json", directory, std::hash<std::string>()(what) & 0xffffffff,
                     static_cast<uint64_t>(st.st_dev));
}

Result<Machine> measure_machine(const std::string& path, cpu::CpuDevice& device) {
  Machine machine;
  machine.name = cpu_name();
  SLUICE_ASSIGN_OR_RETURN(DeviceRates rates, measure_cpu(device));
  machine.devices.push_back(std::move(rates));
  SLUICE_ASSIGN_OR_RETURN(const double disk, measure_disk(path));
  machine.tiers.push_back({"disk", 0, disk, 0});
  machine.tiers.push_back({"host", 0, machine.devices.front().memory_gb_s, 0});
  machine.links.push_back({"disk", "host", disk, 0});
  return machine;
}

}  // namespace

Result<DeviceRates> measure_cpu(cpu::CpuDevice& device) {
  DeviceRates rates;
  rates.id = device.name();
  rates.detail = device.describe();
  rates.threads = device.n_threads();
  SLUICE_ASSIGN_OR_RETURN(ProductTimer timer, ProductTimer::create(device));
  for (const DType type : types) {
    SLUICE_RETURN_IF_ERROR(
        measure_type(timer, type, Compute::fast, rates.matvec_gb_s[type], rates.matmul_gflops[type]));
    SLUICE_RETURN_IF_ERROR(
        measure_type(timer, type, Compute::f32, rates.matvec_f32_gb_s[type], rates.matmul_f32_gflops[type]));
    rates.memory_gb_s = std::max(rates.memory_gb_s, rates.matvec_gb_s[type]);
  }
  SLUICE_ASSIGN_OR_RETURN(const double call, timer.time_call());
  rates.call_us = call * 1e6;
  return rates;
}

Result<double> measure_disk(const std::string& path) { return read_rate(path, storage::LoadMode::direct); }
Result<double> measure_page_cache(const std::string& path) { return read_rate(path, storage::LoadMode::buffered); }

Result<Machine> this_machine(const std::string& machine_file, const std::string& path, bool direct,
                             cpu::CpuDevice& device) {
  if (!machine_file.empty()) return read_machine(machine_file);
  const std::string cached = cache_path(device, path);
  Result<Machine> machine = cached.empty() ? Status(Code::not_found, "no cache") : read_machine(cached);
  if (!machine.ok()) {
    machine = measure_machine(path, device);
    if (!machine.ok()) return machine;
    if (!cached.empty()) write_machine(*machine, cached).ignore();  // measured again next time
  }
  const auto in_cache = storage::cached_fraction(path);
  if (!direct && in_cache.ok() && *in_cache > 0.95) {
    SLUICE_ASSIGN_OR_RETURN(machine->tiers.front().read_gb_s, measure_page_cache(path));
  }
  return machine;
}

}  // namespace sluice::engine
