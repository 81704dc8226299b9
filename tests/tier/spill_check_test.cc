// What comes back from the spill file is what was written, or it does not come back.
#include <set>

#include "tests/tier/rig.h"

namespace sluice::testing {
namespace {

using tier::CopyState;

bool is_write(const IoRequest& r) { return r.op == IoRequest::Op::write; }

RigOptions with_device(bool on_device) {
  RigOptions o;
  o.device_bytes = on_device ? 128 * KiB : 0;
  return o;
}

// Flips one bit of what is on its way to the spill file, behind the back of who wrote it.
void damage_writes(Rig& rig, uint64_t bit) {
  rig.memory_store->set_fault([bit](uint64_t, const IoRequest& r) {
    if (is_write(r)) r.slot[bit / 8 % r.extent.bytes] ^= static_cast<std::byte>(1 << bit % 8);
    return false;
  });
}

TEST_CASE("spill check: any flipped bit is an error that names the block, and the copy is never ready") {
  for (const bool on_device : {false, true}) {
    for (const uint64_t bit : {0u, 1u, 777u, 8u * 4999u + 7u, 8u * 2500u}) {
      Rig rig(with_device(on_device));
      const TierId tier = rig.device;
      const BlockId good = rig.make(5000, tier, 1), bad = rig.make(5000, tier, 2);
      rig.evicted(good, tier);
      damage_writes(rig, bit);
      rig.evicted(bad, tier);
      rig.memory_store->set_fault({});
      for (int attempt = 0; attempt < 2; ++attempt) {  // reading again does not mend it
        REQUIRE(rig.tiers->fetch(bad, tier).ok());
        auto pin = rig.tiers->pin(bad, tier);
        REQUIRE(pin.ok());
        const Status status = pin->ready().wait();
        CHECK(status.code() == Code::corrupt);
        CHECK(status.message().find("block " + std::to_string(bad.value)) != std::string::npos);
        rig.settle();
        CHECK(rig.tiers->state(bad, tier) == CopyState::failed);
        pin->release();
        rig.settle();
        CHECK(rig.tiers->state(bad, tier) == CopyState::absent);
        CHECK(rig.tiers->pin(bad, tier).status().code() == Code::corrupt);
      }
      CHECK(holds(rig.fetched(good, tier).data(), 5000, 1));
      CHECK(rig.tiers->transfers().failed == 2);
      rig.tiers->drop(bad);
    }
  }
}

TEST_CASE("spill check: a place that is written again has the sum of what was written last") {
  Rig rig;
  const BlockId id = rig.make(3000, rig.host, 1);
  for (uint64_t seed = 2; seed < 8; ++seed) {
    rig.evicted(id, rig.host);
    auto pin = rig.fetched(id, rig.host);
    CHECK(holds(pin.data(), 3000, seed - 1));
    fill(pin.data(), 3000, seed);
    pin.mark_dirty();
  }
  // Two blocks that take turns in one place.
  rig.tiers->drop(id);
  rig.settle();
  for (uint64_t seed = 10; seed < 16; ++seed) {
    const BlockId next = rig.make(1000 * (seed - 9), rig.host, seed);
    rig.evicted(next, rig.host);
    CHECK(holds(rig.fetched(next, rig.host).data(), 1000 * (seed - 9), seed));
    rig.tiers->drop(next);
    rig.settle();
  }
}

TEST_CASE("spill check: changed data with a home in files is checked too") {
  for (const bool on_device : {false, true}) {
    Rig rig(with_device(on_device));
    const TierId tier = rig.device;
    const BlockId id = rig.add_home({{{}, 10, 9000}, {{}, 20000, 50}}).value();
    {
      auto pin = rig.fetched(id, tier);
      fill(pin.data(1), 50, 3);
      pin.mark_dirty();
    }
    damage_writes(rig, 8 * 12);
    rig.evicted(id, tier);
    rig.memory_store->set_fault({});
    REQUIRE(rig.tiers->fetch(id, tier).ok());
    CHECK(rig.tiers->pin(id, tier)->ready().wait().code() == Code::corrupt);
    rig.settle();
  }
}

TEST_CASE("spill check: more pages at once than checks can wait, some of them broken") {
  RigOptions o;
  o.host_bytes = 2 * MiB;
  o.spill_bytes = 2 * MiB;
  Rig rig(o);
  std::vector<BlockId> blocks;
  for (uint64_t i = 0; i < 200; ++i) blocks.push_back(rig.make(4096, rig.host, i));
  std::set<uint64_t> broken;
  uint64_t writes = 0;
  rig.memory_store->set_fault([&](uint64_t, const IoRequest& r) {
    if (is_write(r) && ++writes % 7 == 0) {
      r.slot[100] ^= std::byte{1};
      broken.insert(r.extent.offset);
    }
    return false;
  });
  for (const BlockId id : blocks) REQUIRE(rig.tiers->evict(id, rig.host).ok());
  rig.settle();
  rig.memory_store->set_fault({});
  size_t done = 0;
  REQUIRE(rig.tiers->fetch(blocks, rig.host, done).ok());
  uint64_t corrupt = 0;
  for (uint64_t i = 0; i < 200; ++i) {
    auto pin = rig.tiers->pin(blocks[i], rig.host);
    REQUIRE(pin.ok());
    const Status status = pin->ready().wait();
    corrupt += status.code() == Code::corrupt;
    if (status.ok()) CHECK(holds(pin->data(), 4096, i));
  }
  CHECK(corrupt == broken.size());
  CHECK(corrupt == 200 / 7);
}

TEST_CASE("spill check: a read that fails, or is cancelled, says so and not that it is corrupt") {
  Rig rig;
  const BlockId id = rig.make(5000, rig.host, 9);
  rig.evicted(id, rig.host);
  rig.memory_store->fail_request(1);
  REQUIRE(rig.tiers->fetch(id, rig.host).ok());
  CHECK(rig.tiers->pin(id, rig.host)->ready().wait().code() == Code::io_error);
  rig.settle();
  rig.memory_store->hold();
  REQUIRE(rig.tiers->fetch(id, rig.host).ok());
  rig.tiers->cancel(id, rig.host);
  rig.settle();
  rig.memory_store->resume();
  CHECK(rig.tiers->transfers().cancelled == 1);
  CHECK(holds(rig.fetched(id, rig.host).data(), 5000, 9));
}

}  // namespace
}  // namespace sluice::testing
