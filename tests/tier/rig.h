// What the tests of the tier manager stand on: a store, a host tier and perhaps a device tier, budgets,
// queues, and a manager, which all have to be back at their baseline at the end.
#pragma once

#include <doctest/doctest.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/bytes.h"
#include "offload/tier/tier_manager.h"
#include "tests/support/memory_store.h"
#include "tests/support/sim_memory.h"

namespace sluice::testing {

// Content that a seed and the place decide.
inline std::byte pattern_byte(uint64_t seed, uint64_t i) {
  uint64_t x = (seed + 1) * 0x9E3779B97F4A7C15ull + i / 8 * 0xD1B54A32D192ED03ull;
  x ^= x >> 29;
  x *= 0xBF58476D1CE4E5B9ull;
  return static_cast<std::byte>(x >> (8 * (i % 8)));
}
inline void fill(std::byte* to, uint64_t bytes, uint64_t seed, uint64_t first = 0) {
  for (uint64_t i = 0; i < bytes; ++i) to[i] = pattern_byte(seed, first + i);
}
inline bool holds(const std::byte* at, uint64_t bytes, uint64_t seed, uint64_t first = 0) {
  for (uint64_t i = 0; i < bytes; ++i)
    if (at[i] != pattern_byte(seed, first + i)) return false;
  return true;
}

// Memory and links of a real device, which outlive the rig; null: simulated ones.
struct RigDevice {
  Memory* host = nullptr;  // that the links reach
  Memory* memory = nullptr;
  CopyQueue *up = nullptr, *down = nullptr;
};

struct RigOptions {
  uint64_t host_bytes = 256 * KiB, device_bytes = 0;  // memory; no device tier if 0
  uint64_t host_budget = UINT64_MAX, device_budget = UINT64_MAX;
  uint64_t spill_bytes = 1 * MiB;
  std::string spill_directory = "spill";
  uint32_t max_blocks = 256;
  MemoryStore::Options store;
  SimCopyQueue::Options queue;
  RigDevice real;
};

// One file, "data", of pattern bytes with seed 7. Store requests and queues can be made to fail.
class Rig {
 public:
  static constexpr uint64_t file_bytes = 1 * MiB, file_seed = 7;

  explicit Rig(const RigOptions& o = {}) : Rig(o, std::make_unique<MemoryStore>(o.store)) {}
  // On another store, which has the file under `path`.
  Rig(const RigOptions& o, std::unique_ptr<Store> other, const std::string& path) : Rig(o, std::move(other)) {
    open(path);
  }
  virtual ~Rig() {
    if (tiers) settle();
    tiers.reset();
    CHECK(host_budget.used() == 0);
    CHECK(device_budget.used() == 0);
    CHECK(store->stats().in_flight == 0);
    if (memory_store != nullptr) CHECK(memory_store->open_files() == 1);
  }

  std::unique_ptr<Store> store;
  MemoryStore* memory_store;  // null on other stores
  SimMemory host_memory, device_memory;
  tier::Budget host_budget, device_budget;
  SimCopyQueue up, down;
  FileId file;
  std::unique_ptr<tier::TierManager> tiers;
  TierId host, device;

  Result<BlockId> add_home(std::vector<Extent> home) {
    for (Extent& e : home) e.file = file;
    return tiers->add_block(BlockKind::weight, std::move(home));
  }
  // One extent of the file.
  BlockId home(uint64_t offset, uint64_t bytes) { return add_home({{FileId{}, offset, bytes}}).value(); }
  BlockId born(uint64_t bytes) { return tiers->add_block(BlockKind::kv_page, bytes).value(); }

  // Pins what was fetched and waits for it.
  tier::Pin ready_pin(BlockId id, TierId tier) {
    auto pin = tiers->pin(id, tier);
    REQUIRE_MESSAGE(pin.ok(), pin.status().message());
    const Status status = pin->ready().wait();
    REQUIRE_MESSAGE(status.ok(), status.message());
    return std::move(*pin);
  }
  tier::Pin fetched(BlockId id, TierId tier) {
    const Status status = tiers->fetch(id, tier);
    REQUIRE_MESSAGE(status.ok(), status.message());
    return ready_pin(id, tier);
  }
  // A block born in `tier` with the content of `seed`, not pinned.
  BlockId make(uint64_t bytes, TierId tier, uint64_t seed) {
    const BlockId id = born(bytes);
    auto pin = tiers->create(id, tier);
    REQUIRE_MESSAGE(pin.ok(), pin.status().message());
    fill(pin->data(), bytes, seed);
    return id;
  }
  bool holds_file(const tier::Pin& pin) const {
    const Block& b = tiers->block(pin.block());
    for (size_t i = 0; i < b.home.size(); ++i)
      if (!holds(pin.data(i), b.home[i].bytes, file_seed, b.home[i].offset)) return false;
    return true;
  }
  // Polls until every transfer has ended and nothing is on its way out; counts that each ended once.
  void settle() {
    for (;;) {
      tiers->poll();
      const tier::TransferStats t = tiers->transfers();
      const bool ended = t.started == t.done + t.failed + t.cancelled;
      const Event next = tiers->pending(host) == Event() ? tiers->pending(device) : tiers->pending(host);
      if (ended && next == Event()) break;
      if (next == Event()) std::this_thread::sleep_for(std::chrono::microseconds(50));
      else next.wait().ignore();
    }
  }
  void evicted(BlockId id, TierId tier) {
    const Status status = tiers->evict(id, tier);
    REQUIRE_MESSAGE(status.ok(), status.message());
    settle();
    CHECK(tiers->state(id, tier) == tier::CopyState::absent);
  }

 private:
  Rig(const RigOptions& o, std::unique_ptr<Store> s)
      : store(std::move(s)),
        memory_store(dynamic_cast<MemoryStore*>(store.get())),
        host_memory(o.host_bytes, true),
        device_memory(o.device_bytes, false),
        host_budget("host", o.host_budget),
        device_budget("device", o.device_budget),
        up(o.queue),
        down(o.queue) {
    tiers = std::make_unique<tier::TierManager>(
        tier::TierManager::Options{store.get(), o.spill_directory, o.spill_bytes, o.max_blocks});
    Memory* const host_used = o.real.host != nullptr ? o.real.host : &host_memory;
    Memory* const device_used = o.real.memory != nullptr ? o.real.memory : &device_memory;
    host = tiers->add_tier("host", *host_used, host_budget);
    device = host;
    if (o.device_bytes > 0) {
      device = tiers->add_tier("device", *device_used, device_budget);
      tiers->connect(host, device, o.real.up != nullptr ? *o.real.up : up);
      tiers->connect(device, host, o.real.down != nullptr ? *o.real.down : down);
    }
    if (memory_store == nullptr) return;
    std::vector<std::byte> bytes(file_bytes);
    fill(bytes.data(), file_bytes, file_seed);
    memory_store->add_file("data", std::move(bytes));
    open("data");
  }
  void open(const std::string& path) {
    auto opened = store->open(path);
    REQUIRE_MESSAGE(opened.ok(), opened.status().message());
    file = *opened;
  }
};

}  // namespace sluice::testing
