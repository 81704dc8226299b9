#include "engine/machine/measure_disk.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/trace.h"
#include "cpu/host_memory.h"
#include "engine/machine/beside.h"
#include "storage/open_store.h"

namespace sluice::engine {
namespace {

double seconds_since(uint64_t start) { return static_cast<double>(now_ns() - start) * 1e-9; }

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
                               cpu::CpuDevice& device, uint64_t weights) {
  TierRates tier;
  tier.id = id;
  SLUICE_ASSIGN_OR_RETURN(tier.read_gb_s, read_rate(path, mode, seconds));
  SLUICE_ASSIGN_OR_RETURN(const Beside beside,
                          measure_beside(device, weights, seconds, [&] { return read_rate(path, mode, seconds); }));
  tier.read_beside_gb_s = beside.other;
  tier.compute_beside = beside.compute;
  return tier;
}

}  // namespace sluice::engine
