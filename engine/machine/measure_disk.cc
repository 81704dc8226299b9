#include "engine/machine/measure_disk.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <thread>

#include "core/error.h"
#include "core/trace.h"
#include "engine/machine/timer.h"
#include "storage/open_store.h"

namespace sluice::engine {
namespace {

constexpr DType beside_type = DType::q4_k;
constexpr uint32_t beside_rows = 1024, beside_cols = 4096;
constexpr uint64_t beside_weights = 40 * MiB;

double seconds_since(uint64_t start) { return static_cast<double>(now_ns() - start) * 1e-9; }

// Products, one behind the other, for `seconds` or until `stop`: weight bytes per second.
Result<double> product_rate(KernelTimer& timer, double seconds, const std::atomic<bool>* stop) {
  const uint64_t bytes = beside_rows * row_bytes(beside_type, beside_cols);
  const auto goes_on = [&](uint64_t since) {
    return stop != nullptr ? !stop->load(std::memory_order_relaxed) : seconds_since(since) < seconds;
  };
  constexpr uint32_t at_once = 16;
  SLUICE_ASSIGN_OR_RETURN(const auto launch, timer.product(beside_type, Compute::fast, beside_rows, beside_cols, 1));
  double busy = 0;
  uint64_t n = 0;
  for (const uint64_t start = now_ns(); goes_on(start) || n == 0; n += at_once) {
    SLUICE_ASSIGN_OR_RETURN(const double some, timer.time_run(at_once, launch));
    busy += some;
  }
  return static_cast<double>(n * bytes) / busy;
}

}  // namespace

Result<double> read_rate(const std::string& path, storage::LoadMode mode, double seconds) {
  constexpr uint64_t chunk = 4 * MiB;  // about what tiles have
  constexpr size_t in_flight = 16;
  storage::StoreOptions options;
  options.mode = mode;
  SLUICE_ASSIGN_OR_RETURN(auto store, storage::open_store(options, nullptr));
  SLUICE_ASSIGN_OR_RETURN(const FileId file, store->open(path));
  SLUICE_ASSIGN_OR_RETURN(auto memory, cpu::HostMemory::create(in_flight * chunk, true));
  const uint64_t size = store->size(file) / io_unit * io_unit;
  if (size == 0) return error(Code::corrupt, "{}: the file is empty", path);

  std::array<Event, in_flight> events;
  uint64_t done = 0, at = 0;
  const uint64_t start = now_ns();
  // A file that is short is read again; 16 reads at least.
  for (size_t i = 0; seconds_since(start) < seconds; ++i) {
    SLUICE_RETURN_IF_ERROR(events[i % in_flight].wait());
    if (at >= size) at = 0;
    const uint64_t bytes = std::min(chunk, size - at);
    const IoRequest request{IoRequest::Op::read, {file, at, bytes}, memory->base() + i % in_flight * chunk};
    store->submit({&request, 1}, {&events[i % in_flight], 1});
    at += bytes;
    done += bytes;
  }
  for (const Event& event : events) SLUICE_RETURN_IF_ERROR(event.wait());
  return static_cast<double>(done) / seconds_since(start) * 1e-9;
}

Result<TierRates> measure_tier(const std::string& id, const std::string& path, storage::LoadMode mode, double seconds,
                               cpu::CpuDevice& device) {
  TierRates tier;
  tier.id = id;
  SLUICE_ASSIGN_OR_RETURN(tier.read_gb_s, read_rate(path, mode, seconds));
  SLUICE_ASSIGN_OR_RETURN(KernelTimer timer,
                          KernelTimer::create(device, beside_weights, product_scratch(beside_rows, beside_cols, 1)));
  SLUICE_ASSIGN_OR_RETURN(const double alone, product_rate(timer, seconds / 2, nullptr));
  std::atomic<bool> stop{false};
  Result<double> read = 0.0;
  std::thread reader([&] {
    read = read_rate(path, mode, seconds);
    stop.store(true, std::memory_order_relaxed);
  });
  const Result<double> beside = product_rate(timer, seconds, &stop);
  reader.join();
  SLUICE_RETURN_IF_ERROR(read.status());
  SLUICE_RETURN_IF_ERROR(beside.status());
  tier.read_beside_gb_s = *read;
  tier.compute_beside = std::clamp(*beside / alone, 0.01, 1.0);
  return tier;
}

}  // namespace sluice::engine
