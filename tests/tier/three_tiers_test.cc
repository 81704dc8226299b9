// Files, host memory and a device's memory that files cannot be read into.
#include "tests/tier/rig.h"

namespace sluice::testing {
namespace {

using tier::CopyState;
using tier::Pin;

RigOptions options(uint64_t host = 64 * KiB, uint64_t device = 64 * KiB) {
  RigOptions o;
  o.host_bytes = host;
  o.device_bytes = device;
  return o;
}

TEST_CASE("three tiers: a fetch to the device borrows host memory and gives it back") {
  Rig rig(options());
  rig.memory_store->hold();
  const BlockId id = rig.home(100, 20000);
  REQUIRE(rig.tiers->fetch(id, rig.device).ok());
  CHECK(rig.host_budget.used() == rig.tiers->block(id).slot_size());
  CHECK(rig.device_budget.used() == rig.tiers->block(id).slot_size());
  CHECK(rig.tiers->state(id, rig.host) == CopyState::absent);
  CHECK(!(rig.tiers->pending(rig.host) == Event()));
  rig.memory_store->resume();
  CHECK(rig.holds_file(rig.ready_pin(id, rig.device)));
  CHECK(rig.tiers->poll());
  CHECK(rig.host_budget.used() == 0);
  CHECK(rig.tiers->stats(rig.device).bytes_in == 20000);
  CHECK(rig.tiers->stats(rig.host).bytes_in == 0);
  CHECK(rig.up.copies() == 1);
}

TEST_CASE("three tiers: memory is replaced when it is empty, and what lies elsewhere stays") {
  Rig rig(options());
  const BlockId a = rig.home(100, 20000), b = rig.home(4096, 8192);
  const BlockId kept = rig.make(5000, rig.host, 3);
  {
    const Pin pin = rig.fetched(a, rig.device);
    CHECK(rig.tiers->replace_memory(rig.device, nullptr).code() == Code::invalid_argument);
    CHECK(rig.holds_file(pin));
  }
  rig.evicted(a, rig.device);
  CHECK(rig.tiers->replace_memory(rig.host, nullptr).code() == Code::invalid_argument);

  REQUIRE(rig.tiers->replace_memory(rig.device, nullptr).ok());
  CHECK(rig.tiers->stats(rig.device).capacity == 0);
  CHECK(rig.tiers->fetch(a, rig.device).code() == Code::over_budget);
  SimMemory smaller(24 * KiB, false);
  REQUIRE(rig.tiers->replace_memory(rig.device, &smaller).ok());
  CHECK(rig.tiers->stats(rig.device).capacity == 24 * KiB);
  {
    const Pin pin = rig.fetched(a, rig.device);
    CHECK(rig.holds_file(pin));
    CHECK(pin.data() >= smaller.base());
    CHECK(pin.data() < smaller.base() + smaller.capacity());
    CHECK(rig.tiers->fetch(b, rig.device).code() == Code::over_budget);
  }
  rig.evicted(a, rig.device);
  REQUIRE(rig.tiers->replace_memory(rig.device, &rig.device_memory).ok());
  { const Pin pin = rig.fetched(b, rig.device); }
  rig.evicted(b, rig.device);
  const Pin still = rig.ready_pin(kept, rig.host);
  CHECK(holds(still.data(), 5000, 3));
}

TEST_CASE("three tiers: copies go through the queue that was connected last") {
  Rig rig(options());
  const BlockId id = rig.home(100, 20000);
  SimCopyQueue other{SimCopyQueue::Options()};
  { const Pin pin = rig.fetched(id, rig.device); }
  rig.evicted(id, rig.device);
  rig.tiers->connect(rig.host, rig.device, other);
  CHECK(rig.holds_file(rig.fetched(id, rig.device)));
  CHECK(rig.up.copies() == 1);
  CHECK(other.copies() == 1);
  rig.tiers.reset();
}

TEST_CASE("three tiers: a device whose loads wait for staging says so through pending()") {
  Rig rig(options(16 * KiB, 64 * KiB));
  rig.memory_store->hold();
  std::vector<BlockId> ids;
  for (uint64_t i = 0; i < 8; ++i) ids.push_back(rig.home(i * 8192, 8192));
  size_t done = 0;
  const Status full = rig.tiers->fetch(ids, rig.device, done);
  CHECK(full.code() == Code::over_budget);
  CHECK(full.message().find("host") != std::string::npos);
  CHECK(done == 2);
  rig.memory_store->resume();
  while (done < ids.size()) {
    const Event next = rig.tiers->pending(rig.device);
    REQUIRE(!(next == Event()));
    REQUIRE(next.wait().ok());
    rig.tiers->poll();
    size_t more = 0;
    rig.tiers->fetch(std::span(ids).subspan(done), rig.device, more).ignore();
    done += more;
  }
  for (const BlockId id : ids) CHECK(rig.holds_file(rig.ready_pin(id, rig.device)));
}

TEST_CASE("three tiers: memory is the nearer source, also while it is still loading") {
  Rig rig(options());
  rig.memory_store->hold();
  const BlockId id = rig.add_home({{{}, 5, 9000}, {{}, 33, 44}}).value();
  REQUIRE(rig.tiers->fetch(id, rig.host).ok());
  REQUIRE(rig.tiers->fetch(id, rig.device).ok());
  rig.tiers->cancel(id, rig.host);  // somebody's source: not cancelled
  rig.memory_store->resume();
  CHECK(rig.holds_file(rig.ready_pin(id, rig.device)));
  CHECK(rig.holds_file(rig.ready_pin(id, rig.host)));
  CHECK(rig.store->stats().reads == 2);  // two extents, once each
}

TEST_CASE("three tiers: a copy waits for those who write its source") {
  Timeline work;
  Rig rig(options());
  const BlockId id = rig.make(8192, rig.host, 1);
  Pin writer = rig.ready_pin(id, rig.host);
  std::byte* const data = writer.data();
  writer.mark_dirty();
  writer.release(Event(work, 1));
  REQUIRE(rig.tiers->fetch(id, rig.device).ok());
  Pin pin = rig.tiers->pin(id, rig.device).value();
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  CHECK(!pin.ready().done());
  fill(data, 8192, 2);
  work.signal(1);
  REQUIRE(pin.ready().wait().ok());
  CHECK(holds(pin.data(), 8192, 2));
}

TEST_CASE("three tiers: the source of a copy stays until the copy has been made") {
  RigOptions o = options();
  o.queue.latency = std::chrono::milliseconds(2);
  Rig rig(o);
  const BlockId id = rig.home(0, 8192);
  rig.fetched(id, rig.host);
  REQUIRE(rig.tiers->fetch(id, rig.device).ok());
  REQUIRE(rig.tiers->evict(id, rig.host).ok());
  CHECK(rig.tiers->state(id, rig.host) == CopyState::evicting);
  CHECK(rig.holds_file(rig.ready_pin(id, rig.device)));
  rig.settle();
  CHECK(rig.tiers->state(id, rig.host) == CopyState::absent);
}

TEST_CASE("three tiers: dirty data moves down and up again without a file") {
  Rig rig(options());
  const BlockId id = rig.make(10000, rig.device, 3);
  REQUIRE(rig.tiers->fetch(id, rig.host).ok());
  REQUIRE(rig.tiers->evict(id, rig.device).ok());  // the host's copy becomes the keeper when it is there
  CHECK(rig.tiers->state(id, rig.device) == CopyState::writing);
  rig.settle();
  CHECK(rig.tiers->state(id, rig.device) == CopyState::absent);
  CHECK(rig.tiers->state(id, rig.host) == CopyState::dirty);
  CHECK(rig.store->stats().writes == 0);
  CHECK(holds(rig.fetched(id, rig.device).data(), 10000, 3));
  rig.settle();
  rig.evicted(id, rig.host);  // and back: now the device's is
  CHECK(rig.tiers->state(id, rig.device) == CopyState::dirty);
  rig.evicted(id, rig.device);
  CHECK(rig.tiers->spilled(id));
  CHECK(rig.store->stats().writes == 1);
  CHECK(holds(rig.fetched(id, rig.host).data(), 10000, 3));
}

TEST_CASE("three tiers: if the copy that was to take over fails, the data is written out instead") {
  Rig rig(options());
  const BlockId id = rig.make(10000, rig.device, 3);
  rig.evicted(rig.make(1, rig.host, 1), rig.host);  // so that there is a spill file
  rig.down.fail_copy(1);
  REQUIRE(rig.tiers->fetch(id, rig.host).ok());
  REQUIRE(rig.tiers->evict(id, rig.device).ok());
  rig.settle();
  CHECK(rig.tiers->transfers().failed == 1);
  CHECK(rig.tiers->state(id, rig.device) == CopyState::absent);
  CHECK(rig.tiers->spilled(id));
  CHECK(holds(rig.fetched(id, rig.device).data(), 10000, 3));
}

TEST_CASE("three tiers: a change makes other copies stale, and they go when nobody uses them") {
  Rig rig(options());
  const BlockId id = rig.make(5000, rig.host, 1);
  Pin reader = rig.fetched(id, rig.device);
  Pin writer = rig.ready_pin(id, rig.host);
  rig.settle();
  writer.mark_dirty();
  CHECK(rig.tiers->pin(id, rig.device).status().code() == Code::not_found);
  CHECK(rig.tiers->fetch(id, rig.device).code() == Code::unavailable);
  CHECK(holds(reader.data(), 5000, 1));
  fill(writer.data(), 5000, 2);
  writer.release();
  reader.release();
  CHECK(rig.tiers->state(id, rig.device) == CopyState::absent);
  CHECK(holds(rig.fetched(id, rig.device).data(), 5000, 2));
}

TEST_CASE("three tiers: a stale load is freed when it ends") {
  RigOptions o = options();
  o.queue.latency = std::chrono::milliseconds(1);
  Rig rig(o);
  const BlockId id = rig.make(5000, rig.host, 1);
  REQUIRE(rig.tiers->fetch(id, rig.device).ok());
  {
    Pin writer = rig.ready_pin(id, rig.host);
    Pin reader = rig.ready_pin(id, rig.device);
    reader.release();
    writer.mark_dirty();
    fill(writer.data(), 5000, 2);
  }
  rig.settle();
  CHECK(rig.tiers->state(id, rig.device) == CopyState::absent);
  CHECK(holds(rig.fetched(id, rig.device).data(), 5000, 2));
}

TEST_CASE("three tiers: a failed copy queue works again once it is drained") {
  Rig rig(options());
  rig.up.fail_copy(1);
  std::vector<BlockId> ids;
  for (uint64_t i = 0; i < 4; ++i) ids.push_back(rig.home(i * 4096, 4096));
  size_t done = 0;
  REQUIRE(rig.tiers->fetch(ids, rig.device, done).ok());
  rig.settle();
  CHECK(rig.tiers->transfers().failed >= 1);
  for (const BlockId id : ids) CHECK(rig.holds_file(rig.fetched(id, rig.device)));
}

TEST_CASE("three tiers: staging outlives a copy that failed before its read has ended") {
  Rig rig(options());
  rig.memory_store->hold();
  const BlockId a = rig.home(0, 4096), b = rig.home(4096, 8192);
  const BlockId both[] = {a, b};
  size_t done = 0;
  REQUIRE(rig.tiers->fetch(both, rig.device, done).ok());
  Pin pin = rig.tiers->pin(b, rig.device).value();
  rig.memory_store->set_fault([&](uint64_t n, const IoRequest&) {
    if (n == 1) rig.memory_store->hold();
    return n == 1;
  });
  rig.memory_store->resume();
  CHECK(pin.ready().wait().code() == Code::io_error);  // behind a's failure, on the same queue
  while (rig.tiers->state(a, rig.device) != CopyState::absent) rig.tiers->poll();
  CHECK(rig.tiers->state(b, rig.device) == CopyState::loading);
  CHECK(rig.host_budget.used() == 8192);        // the store may still write there
  CHECK(rig.tiers->fetch(a, rig.device).ok());  // the queue works again
  CHECK(!(rig.tiers->pending(rig.host) == Event()));
  rig.memory_store->resume();
  rig.settle();
  CHECK(rig.tiers->state(b, rig.device) == CopyState::failed);
  pin.release();
  CHECK(rig.host_budget.used() == 0);
  CHECK(rig.holds_file(rig.fetched(a, rig.device)));
  CHECK(rig.holds_file(rig.fetched(b, rig.device)));
}

TEST_CASE("three tiers: the place of a spilled block is not reused while it is being read") {
  RigOptions o = options();
  o.spill_bytes = 8192;
  Rig rig(o);
  const BlockId read = rig.make(8192, rig.host, 1), other = rig.make(8192, rig.host, 2);
  rig.evicted(read, rig.host);
  rig.memory_store->hold();
  REQUIRE(rig.tiers->fetch(read, rig.device).ok());
  Pin pin = rig.tiers->pin(read, rig.device).value();
  rig.tiers->drop(read);
  CHECK(rig.tiers->evict(other, rig.host).code() == Code::over_budget);
  rig.memory_store->resume();
  REQUIRE(pin.ready().wait().ok());
  CHECK(holds(pin.data(), 8192, 1));
  pin.release();
  rig.settle();
  rig.evicted(other, rig.host);
  CHECK(rig.tiers->spilled(other));
}

TEST_CASE("three tiers: without a connection a device cannot be reached, and that is said") {
  Rig rig(options());
  tier::TierManager tiers({rig.store.get(), "spill", 64 * KiB, 16});
  const TierId host = tiers.add_tier("host", rig.host_memory, rig.host_budget);
  const TierId device = tiers.add_tier("device", rig.device_memory, rig.device_budget);
  const BlockId file = tiers.add_block(BlockKind::weight, {{rig.file, 0, 100}}).value();
  CHECK(tiers.fetch(file, device).code() == Code::unsupported);
  const BlockId born = tiers.add_block(BlockKind::state, uint64_t{100}).value();
  tiers.create(born, device).value().release();
  CHECK(tiers.evict(born, device).code() == Code::unsupported);
  CHECK(tiers.fetch(born, host).code() == Code::unsupported);
  CHECK(tiers.state(born, device) == CopyState::dirty);
}

}  // namespace
}  // namespace sluice::testing
