// GPU memory as the second tier: the contract of the tier manager, through pinned memory and copy queues.
#include "cpu/host_memory.h"
#include "tests/gpu/gpu_rig.h"
#include "tests/tier/tier_contract.h"

namespace sluice::testing {
namespace {

// Made before the rig that stands on it, and gone after it.
struct Gpu {
  Gpu(const RigOptions& o, const standin::Options& options, bool own_ring) : standin(options) {
    host = cpu::HostMemory::create(o.host_bytes, true).value();
    pinned = own_ring ? gpu::PinnedMemory::allocate(0, o.host_bytes).value() : gpu::PinnedMemory::pin(0, *host).value();
    memory = gpu::GpuMemory::create(0, o.device_bytes).value();
    completions = gpu::Completions::create({}).value();
    up = gpu::GpuCopyQueue::create(*completions).value();
    down = gpu::GpuCopyQueue::create(*completions).value();
  }
  RigOptions on_it(const RigOptions& o) const {
    RigOptions with = o;
    with.real = {pinned.get(), memory.get(), up.get(), down.get()};
    return with;
  }

  StandIn standin;
  std::unique_ptr<cpu::HostMemory> host;
  std::unique_ptr<gpu::PinnedMemory> pinned;
  std::unique_ptr<gpu::GpuMemory> memory;
  std::unique_ptr<gpu::Completions> completions;
  std::unique_ptr<gpu::GpuCopyQueue> up, down;
};

struct GpuTierRig : Gpu, Rig {
  GpuTierRig(const RigOptions& o, const standin::Options& options, bool own_ring)
      : Gpu(o, options, own_ring), Rig(on_it(o)) {}
};

RigFactory rigs(const standin::Options& options = {}, bool own_ring = false) {
  return [options, own_ring](const RigOptions& o) { return std::make_unique<GpuTierRig>(o, options, own_ring); };
}

TEST_CASE("gpu tier contract: registered host memory") { tier_contract(rigs(), true); }
TEST_CASE("gpu tier contract: a pinned ring") { tier_contract(rigs({}, true), true); }
TEST_CASE("gpu tier contract: without stream memory operations") {
  standin::Options o;
  o.memory_operations = false;
  tier_contract(rigs(o), true);
}
TEST_CASE("gpu tier contract: a slow link") {
  standin::Options o;
  o.h2d_gb_s = o.d2h_gb_s = 1;
  o.latency_us = 50;
  tier_contract(rigs(o), true);
}

RigOptions options(uint64_t host = 64 * KiB, uint64_t device = 64 * KiB) {
  RigOptions o;
  o.host_bytes = host;
  o.device_bytes = device;
  return o;
}

TEST_CASE("gpu tier: blocks stream through little host memory, in order, and arrive whole") {
  GpuTierRig rig(options(16 * KiB, 64 * KiB), {}, false);
  std::vector<BlockId> ids;
  for (uint64_t i = 0; i < 8; ++i) ids.push_back(rig.home(i * 8192, 8192));
  size_t done = 0;
  while (done < ids.size()) {
    size_t more = 0;
    rig.tiers->fetch(std::span(ids).subspan(done), rig.device, more).ignore();
    done += more;
    if (const Event next = rig.tiers->pending(rig.device); !(next == Event())) next.wait().ignore();
    rig.tiers->poll();
  }
  for (const BlockId id : ids) CHECK(rig.holds_file(rig.ready_pin(id, rig.device)));
  rig.settle();
  CHECK(rig.host_budget.used() == 0);
  CHECK(rig.Gpu::up->copies() == 8);
}

TEST_CASE("gpu tier: a copy that is refused fails its block alone, which can be fetched again") {
  GpuTierRig rig(options(), {}, false);
  const BlockId id = rig.home(0, 8192);
  standin::fail(standin::Call::memcpy_async, 1, cudaErrorUnknown);
  REQUIRE(rig.tiers->fetch(id, rig.device).ok());
  rig.settle();
  CHECK(rig.tiers->transfers().failed == 1);
  CHECK(rig.tiers->state(id, rig.device) == tier::CopyState::absent);
  CHECK(rig.holds_file(rig.fetched(id, rig.device)));
}

TEST_CASE("gpu tier: on a lost device every load ends, as failed, and memory comes back") {
  standin::Options o;
  o.latency_us = 20000;
  GpuTierRig rig(options(), o, false);
  std::vector<BlockId> ids;
  for (uint64_t i = 0; i < 4; ++i) ids.push_back(rig.home(i * 8192, 8192));
  size_t done = 0;
  REQUIRE(rig.tiers->fetch(ids, rig.device, done).ok());
  standin::lose_device();
  rig.settle();
  CHECK(rig.tiers->transfers().failed >= 3);
  CHECK(rig.host_budget.used() == 0);
  CHECK(rig.completions->is_lost());
}

}  // namespace
}  // namespace sluice::testing
