#include "tests/tier/tier_contract.h"

namespace sluice::testing {

using tier::CopyState;
using tier::Pin;

namespace {

RigOptions options(bool on_device, uint64_t bytes) {
  RigOptions o;
  o.host_bytes = on_device ? 64 * KiB : bytes;
  o.device_bytes = on_device ? bytes : 0;
  return o;
}

void reads_what_the_file_has(Rig& rig, TierId tier) {
  const std::vector<std::vector<Extent>> homes = {
      {{{}, 0, 4096}},
      {{{}, 1, 1}},
      {{{}, 4095, 2}},
      {{{}, 32, 20000}},
      {{{}, Rig::file_bytes - 5000, 5000}},
      {{{}, 100, 3000}, {{}, 50000, 9000}, {{}, 8191, 4098}},
  };
  for (const auto& home : homes) {
    const BlockId id = rig.add_home(home).value();
    Pin pin = rig.fetched(id, tier);
    CHECK(rig.holds_file(pin));
    CHECK(pin.block() == id);
    CHECK(pin.tier() == tier);
    pin.release();
    CHECK(!pin);
    rig.evicted(id, tier);
    rig.tiers->drop(id);
  }
}

void counts_bytes_and_transfers(Rig& rig, TierId tier) {
  const BlockId a = rig.home(100, 5000), b = rig.home(9000, 7000);
  const BlockId both[] = {a, b, a};
  size_t done = 0;
  REQUIRE(rig.tiers->fetch(both, tier, done).ok());
  CHECK(done == 3);
  rig.settle();
  CHECK(rig.tiers->state(a, tier) == CopyState::ready);
  CHECK(rig.tiers->stats(tier).bytes_in == 12000);
  CHECK(rig.tiers->transfers().started == 2);
  CHECK(rig.tiers->transfers().done == 2);
  CHECK(rig.tiers->stats(tier).used == rig.tiers->block(a).slot_size() + rig.tiers->block(b).slot_size());
  CHECK(rig.store->stats().bytes_read == 12000);
  REQUIRE(rig.tiers->fetch(a, tier).ok());
  CHECK(rig.tiers->transfers().started == 2);
}

void stops_where_room_ends(Rig& rig, TierId tier) {
  std::vector<BlockId> ids;
  for (int i = 0; i < 6; ++i) ids.push_back(rig.home(static_cast<uint64_t>(i) * 8192, 8192));
  size_t done = 0;
  const Status full = rig.tiers->fetch(ids, tier, done);  // room for four
  CHECK(full.code() == Code::over_budget);
  CHECK(done == 4);
  CHECK(rig.tiers->pin(ids[4], tier).status().code() == Code::not_found);
  rig.settle();
  Pin pin = rig.ready_pin(ids[1], tier);
  CHECK(rig.tiers->evict(ids[1], tier).code() == Code::invalid_argument);
  REQUIRE(rig.tiers->evict(ids[0], tier).ok());
  rig.tiers->poll();
  REQUIRE(rig.tiers->fetch(ids[4], tier).ok());
  CHECK(rig.holds_file(rig.ready_pin(ids[4], tier)));
  CHECK(rig.holds_file(pin));
}

void waits_for_the_event_of_a_release(Rig& rig, TierId tier) {
  Timeline work;
  const BlockId a = rig.home(0, 4 * 8192), b = rig.home(4 * 8192, 4 * 8192);  // each fills the tier
  Pin pin = rig.fetched(a, tier);
  rig.settle();
  pin.release(Event(work, 1));
  REQUIRE(rig.tiers->evict(a, tier).ok());
  CHECK(rig.tiers->state(a, tier) == CopyState::evicting);
  CHECK(rig.tiers->pin(a, tier).status().code() == Code::not_found);
  CHECK(!rig.tiers->poll());
  CHECK(rig.tiers->fetch(b, tier).code() == Code::over_budget);
  CHECK(rig.tiers->pending(tier) == Event(work, 1));
  work.signal(1, Status(Code::io_error, "how the work ended does not matter"));
  CHECK(rig.tiers->poll());
  CHECK(rig.tiers->pending(tier) == Event());
  CHECK(rig.tiers->state(a, tier) == CopyState::absent);
  CHECK(rig.holds_file(rig.fetched(b, tier)));
}

void takes_an_eviction_back(Rig& rig, TierId tier) {
  Timeline work;
  const BlockId clean = rig.home(77, 8000);
  rig.fetched(clean, tier).release(Event(work, 1));
  REQUIRE(rig.tiers->evict(clean, tier).ok());
  REQUIRE(rig.tiers->fetch(clean, tier).ok());
  CHECK(rig.tiers->state(clean, tier) == CopyState::ready);
  const BlockId dirty = rig.make(8000, tier, 5);
  rig.ready_pin(dirty, tier).release(Event(work, 1));
  REQUIRE(rig.tiers->evict(dirty, tier).ok());
  CHECK(rig.tiers->state(dirty, tier) == CopyState::writing);
  REQUIRE(rig.tiers->fetch(dirty, tier).ok());
  CHECK(rig.tiers->state(dirty, tier) == CopyState::dirty);
  work.signal(1);
  rig.settle();
  CHECK(rig.tiers->transfers().started == 1);  // the first read and nothing else
  CHECK(holds(rig.ready_pin(dirty, tier).data(), 8000, 5));
}

void spills_and_comes_back(Rig& rig, TierId tier) {
  const uint64_t sizes[] = {1, 4095, 4096, 4097, 30000};
  std::vector<BlockId> ids;
  for (const uint64_t bytes : sizes) {
    ids.push_back(rig.make(bytes, tier, bytes));
    CHECK(rig.tiers->state(ids.back(), tier) == CopyState::dirty);
    rig.evicted(ids.back(), tier);
    CHECK(rig.tiers->spilled(ids.back()));
  }
  CHECK(rig.tiers->stats(tier).bytes_out == 1 + 4095 + 4096 + 4097 + 30000);
  CHECK(rig.tiers->stats(tier).used == 0);
  for (size_t i = 0; i < ids.size(); ++i) {
    CHECK(holds(rig.fetched(ids[i], tier).data(), sizes[i], sizes[i]));
    rig.settle();
    CHECK(rig.tiers->state(ids[i], tier) == CopyState::ready);
    rig.evicted(ids[i], tier);  // clean now: nothing is written
  }
  CHECK(rig.tiers->transfers().started == 10);
  CHECK(rig.store->stats().writes == 5);
}

void new_versions_replace_spilled_ones(Rig& rig, TierId tier) {
  const BlockId id = rig.make(10000, tier, 1);
  for (uint64_t version = 2; version < 6; ++version) {
    rig.evicted(id, tier);
    Pin pin = rig.fetched(id, tier);
    REQUIRE(holds(pin.data(), 10000, version - 1));
    fill(pin.data(), 10000, version);
    pin.mark_dirty();
    CHECK(!rig.tiers->spilled(id));
    CHECK(rig.tiers->state(id, tier) == CopyState::dirty);
  }
  rig.evicted(id, tier);
  CHECK(holds(rig.fetched(id, tier).data(), 10000, 5));
}

void changed_homes_keep_their_layout(Rig& rig, TierId tier) {
  const BlockId id = rig.add_home({{{}, 100, 3000}, {{}, 8191, 4098}}).value();
  {
    Pin pin = rig.fetched(id, tier);
    REQUIRE(rig.holds_file(pin));
    fill(pin.data(0), 3000, 50);
    fill(pin.data(1), 4098, 51);
    pin.mark_dirty();
  }
  rig.evicted(id, tier);
  CHECK(rig.tiers->spilled(id));
  Pin pin = rig.fetched(id, tier);
  CHECK(holds(pin.data(0), 3000, 50));
  CHECK(holds(pin.data(1), 4098, 51));
}

void changes_before_the_load_has_ended_count(Rig& rig, TierId tier) {
  const BlockId id = rig.make(5000, tier, 1);
  rig.evicted(id, tier);
  REQUIRE(rig.tiers->fetch(id, tier).ok());
  Pin pin = rig.tiers->pin(id, tier).value();
  pin.mark_dirty();  // as by one who enqueues work behind ready()
  pin.mark_dirty();
  REQUIRE(pin.ready().wait().ok());
  CHECK(holds(pin.data(), 5000, 1));
  fill(pin.data(), 5000, 2);
  pin.release();
  rig.settle();
  CHECK(rig.tiers->state(id, tier) == CopyState::dirty);
  CHECK(!rig.tiers->spilled(id));
  rig.evicted(id, tier);
  CHECK(holds(rig.fetched(id, tier).data(), 5000, 2));
}

void references_are_counted(Rig& rig, TierId tier) {
  const BlockId id = rig.make(4096, tier, 3);
  rig.tiers->share(id);
  CHECK(rig.tiers->references(id) == 2);
  rig.tiers->drop(id);
  CHECK(rig.tiers->references(id) == 1);
  Pin pin = rig.ready_pin(id, tier);
  rig.tiers->drop(id);
  CHECK(rig.tiers->references(id) == 0);
  CHECK(rig.tiers->fetch(id, tier).code() == Code::not_found);
  CHECK(rig.tiers->pin(id, tier).status().code() == Code::not_found);
  CHECK(holds(pin.data(), 4096, 3));  // a pin outlives its block
  CHECK(rig.tiers->stats(tier).used == 4096);
  pin.release();
  CHECK(rig.tiers->poll());
  CHECK(rig.tiers->stats(tier).used == 0);
}

void refuses_what_makes_no_sense(Rig& rig, TierId tier) {
  CHECK(rig.add_home({}).status().code() == Code::invalid_argument);
  CHECK(rig.add_home({{{}, 0, 0}}).status().code() == Code::invalid_argument);
  CHECK(rig.add_home({{{}, UINT64_MAX - 10, 100}}).status().code() == Code::invalid_argument);
  CHECK(rig.add_home({{{}, 0, UINT64_MAX / 2}, {{}, 0, UINT64_MAX / 2}}).status().code() == Code::invalid_argument);
  CHECK(rig.tiers->add_block(BlockKind::state, uint64_t{0}).status().code() == Code::invalid_argument);
  const BlockId id = rig.born(100);
  CHECK(rig.tiers->fetch(id, tier).code() == Code::not_found);
  CHECK(rig.tiers->pin(id, tier).status().code() == Code::not_found);
  CHECK(rig.tiers->evict(id, tier).ok());
  CHECK(rig.tiers->create(id, tier).ok());
  CHECK(rig.tiers->create(id, tier).status().code() == Code::invalid_argument);
  CHECK(rig.tiers->create(rig.home(0, 100), tier).status().code() == Code::invalid_argument);
  CHECK(rig.tiers->create(rig.born(1 * MiB), tier).status().code() == Code::over_budget);
  CHECK(rig.tiers->fetch(BlockId{}, tier).code() == Code::not_found);
  CHECK(rig.tiers->fetch(id, TierId{9}).code() == Code::not_found);
  CHECK(rig.tiers->fetch(rig.home(Rig::file_bytes - 10, 20), tier).ok());  // the store is the one to refuse
  rig.settle();
  CHECK(rig.tiers->transfers().failed == 1);
}

void blocks_can_be_added_and_dropped_for_ever(Rig& rig, TierId tier) {
  for (int i = 0; i < 1000; ++i) {
    const BlockId id = rig.make(4096, tier, 1);
    if (i % 100 == 0) rig.evicted(id, tier);
    rig.tiers->drop(id);
  }
  std::vector<BlockId> ids;
  for (int i = 0; i < 256; ++i) ids.push_back(rig.born(1));
  CHECK(rig.tiers->add_block(BlockKind::state, uint64_t{1}).status().code() == Code::over_budget);
  for (const BlockId id : ids) rig.tiers->drop(id);
  CHECK(rig.tiers->add_block(BlockKind::state, uint64_t{1}).ok());
}

void ends_with_work_under_way(Rig& rig, TierId tier) {
  std::vector<BlockId> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(rig.add_home({{{}, 8192, 3000}, {{}, 50, 100}}).value());
  size_t done = 0;
  REQUIRE(rig.tiers->fetch(ids, tier, done).ok());
  REQUIRE(rig.tiers->evict(rig.make(4096, tier, 1), tier).ok());
  rig.tiers.reset();  // the rig checks that all is given back
}

}  // namespace

void tier_contract(const RigFactory& make, bool on_device) {
  const auto with = [&](void (*test)(Rig&, TierId), uint64_t bytes) {
    const std::unique_ptr<Rig> rig = make(options(on_device, bytes));
    test(*rig, on_device ? rig->device : rig->host);
  };
  SUBCASE("reads what the file has") { with(reads_what_the_file_has, 64 * KiB); }
  SUBCASE("counts bytes and transfers") { with(counts_bytes_and_transfers, 64 * KiB); }
  SUBCASE("stops where room ends") { with(stops_where_room_ends, 32 * KiB); }
  SUBCASE("waits for the event of a release") { with(waits_for_the_event_of_a_release, 32 * KiB); }
  SUBCASE("takes an eviction back") { with(takes_an_eviction_back, 64 * KiB); }
  SUBCASE("spills and comes back") { with(spills_and_comes_back, 64 * KiB); }
  SUBCASE("new versions replace spilled ones") { with(new_versions_replace_spilled_ones, 64 * KiB); }
  SUBCASE("changed homes keep their layout") { with(changed_homes_keep_their_layout, 64 * KiB); }
  SUBCASE("changes before the load has ended count") { with(changes_before_the_load_has_ended_count, 64 * KiB); }
  SUBCASE("references are counted") { with(references_are_counted, 64 * KiB); }
  SUBCASE("refuses what makes no sense") { with(refuses_what_makes_no_sense, 64 * KiB); }
  SUBCASE("blocks can be added and dropped for ever") { with(blocks_can_be_added_and_dropped_for_ever, 64 * KiB); }
  SUBCASE("ends with work under way") { with(ends_with_work_under_way, 64 * KiB); }
}

}  // namespace sluice::testing
