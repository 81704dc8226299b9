// What happens when reads, writes and copies fail, are cancelled, or do not end for a while.
#include "tests/tier/rig.h"

namespace sluice::testing {
namespace {

using tier::CopyState;
using tier::Pin;

bool is_write(const IoRequest& r) { return r.op == IoRequest::Op::write; }

RigOptions three_tiers() {
  RigOptions o;
  o.device_bytes = 128 * KiB;
  return o;
}

TEST_CASE("faults: a failed load shows in its pins, and can be tried again when they are gone") {
  for (const bool on_device : {false, true}) {
    Rig rig(three_tiers());
    const TierId tier = on_device ? rig.device : rig.host;
    const BlockId id = rig.add_home({{{}, 10, 9000}, {{}, 20000, 50}}).value();
    rig.memory_store->fail_request(2);
    REQUIRE(rig.tiers->fetch(id, tier).ok());
    Pin pin = rig.tiers->pin(id, tier).value();
    CHECK(pin.ready().wait().code() == Code::io_error);
    rig.tiers->poll();
    CHECK(rig.tiers->state(id, tier) == CopyState::failed);
    pin.mark_dirty();  // of no effect: there is nothing to be dirty
    CHECK(rig.tiers->pin(id, tier).status().code() == Code::io_error);
    CHECK(rig.tiers->fetch(id, tier).code() == Code::unavailable);
    CHECK(rig.tiers->pending(tier) == Event());
    pin.release();
    rig.tiers->poll();
    CHECK(rig.tiers->state(id, tier) == CopyState::absent);
    CHECK(rig.tiers->stats(tier).used == 0);
    CHECK(rig.host_budget.used() == 0);
    CHECK(rig.tiers->pin(id, tier).status().code() == Code::io_error);  // why it is not there
    CHECK(rig.holds_file(rig.fetched(id, tier)));
    CHECK(rig.tiers->transfers().failed == 1);
  }
}

// A fixed course of loads, changes, evictions and returns; it goes on after failures as a caller would.
struct Course {
  bool done = false;
  uint64_t failures = 0, requests = 0;
};

bool bring(Rig& rig, BlockId id, TierId tier, Pin& pin, Course& course) {
  for (int attempt = 0; attempt < 3; ++attempt) {
    if (rig.tiers->fetch(id, tier).ok()) {
      auto leased = rig.tiers->pin(id, tier);
      if (leased.ok() && leased->ready().wait().ok()) {
        pin = std::move(*leased);
        return true;
      }
    }
    ++course.failures;
    rig.settle();
  }
  return false;
}

bool send_away(Rig& rig, BlockId id, TierId tier, Course& course) {
  for (int attempt = 0; attempt < 4; ++attempt) {
    if (!rig.tiers->evict(id, tier).ok()) ++course.failures;
    rig.settle();
    if (rig.tiers->state(id, tier) == CopyState::absent) return true;
  }
  return false;
}

Course run_course(TierId (*choose)(Rig&), uint64_t fail_request, uint64_t fail_copy) {
  Course course;
  Rig rig(three_tiers());
  const TierId tier = choose(rig);
  uint64_t seen = 0;
  rig.memory_store->set_fault([&](uint64_t n, const IoRequest&) {
    seen = n;
    return n == fail_request;
  });
  rig.up.fail_copy(fail_copy);
  rig.down.fail_copy(fail_copy);
  const BlockId home = rig.add_home({{{}, 1000, 8000}, {{}, 40000, 3000}}).value();
  const BlockId page = rig.make(6000, tier, 1);
  Pin pin;
  course.done = bring(rig, home, tier, pin, course) && rig.holds_file(pin);
  for (uint64_t version = 1; version < 4; ++version) {
    course.done = course.done && send_away(rig, page, tier, course) && rig.tiers->spilled(page);
    course.done = course.done && bring(rig, page, tier, pin, course) && holds(pin.data(), 6000, version);
    if (!course.done) return course;
    fill(pin.data(), 6000, version + 1);
    pin.mark_dirty();
    pin.release();
  }
  rig.tiers->drop(home);
  rig.tiers->drop(page);
  rig.settle();
  CHECK(rig.host_budget.used() == 0);
  CHECK(rig.device_budget.used() == 0);
  const tier::TransferStats t = rig.tiers->transfers();
  CHECK(t.started == t.done + t.failed + t.cancelled);
  course.requests = seen;
  return course;
}

TEST_CASE("faults: an error at every request and every copy is met, told and overcome") {
  for (const bool on_device : {false, true}) {
    const auto choose = on_device ? [](Rig& r) { return r.device; } : [](Rig& r) { return r.host; };
    const Course clean = run_course(choose, 0, 0);
    CHECK(clean.done);
    CHECK(clean.failures == 0);
    REQUIRE(clean.requests >= 8);
    for (uint64_t n = 1; n <= clean.requests; ++n) {
      const Course course = run_course(choose, n, 0);
      CHECK_MESSAGE(course.done, "request ", n);
      CHECK_MESSAGE(course.failures > 0, "request ", n);
    }
    for (uint64_t n = 1; on_device && n <= 3; ++n) {
      const Course course = run_course(choose, 0, n);
      CHECK_MESSAGE(course.done, "copy ", n);
      CHECK_MESSAGE(course.failures > 0, "copy ", n);
    }
  }
}

TEST_CASE("faults: a failed write keeps the copy, says so once, and is tried again") {
  Rig rig;
  rig.memory_store->set_fault([](uint64_t, const IoRequest& r) { return is_write(r); });
  const BlockId id = rig.make(5000, rig.host, 9);
  REQUIRE(rig.tiers->evict(id, rig.host).ok());
  rig.settle();
  CHECK(rig.tiers->state(id, rig.host) == CopyState::dirty);
  CHECK(!rig.tiers->spilled(id));
  CHECK(rig.tiers->transfers().failed == 1);
  CHECK(holds(rig.ready_pin(id, rig.host).data(), 5000, 9));
  const Status told = rig.tiers->evict(id, rig.host);
  CHECK(told.code() == Code::io_error);
  CHECK(told.message().find("injected") != std::string::npos);
  CHECK(rig.tiers->transfers().started == 1);
  rig.memory_store->set_fault({});
  rig.evicted(id, rig.host);
  CHECK(holds(rig.fetched(id, rig.host).data(), 5000, 9));
}

TEST_CASE("faults: where dirty copies cannot go, evict says over_budget and keeps them") {
  RigOptions o;
  o.spill_bytes = 8192;
  SUBCASE("a full spill file") {
    Rig rig(o);
    const BlockId a = rig.make(8192, rig.host, 1), b = rig.make(1, rig.host, 2);
    rig.evicted(a, rig.host);
    CHECK(rig.tiers->evict(b, rig.host).code() == Code::over_budget);
    CHECK(rig.tiers->state(b, rig.host) == CopyState::dirty);
    rig.tiers->drop(a);
    rig.evicted(b, rig.host);
  }
  SUBCASE("no directory given") {
    o.spill_directory.clear();
    Rig rig(o);
    const BlockId a = rig.make(100, rig.host, 1);
    CHECK(rig.tiers->evict(a, rig.host).code() == Code::over_budget);
    CHECK(rig.tiers->state(a, rig.host) == CopyState::dirty);
  }
  SUBCASE("no such directory") {
    o.spill_directory = "missing/directory";
    Rig rig(o);
    const BlockId a = rig.make(100, rig.host, 1);
    CHECK(rig.tiers->evict(a, rig.host).code() == Code::not_found);
    CHECK(rig.tiers->state(a, rig.host) == CopyState::dirty);
  }
}

TEST_CASE("faults: a change made to a load that fails never was") {
  Rig rig;
  const BlockId id = rig.make(5000, rig.host, 1);
  rig.evicted(id, rig.host);
  rig.memory_store->fail_request(1);
  rig.memory_store->hold();
  REQUIRE(rig.tiers->fetch(id, rig.host).ok());
  Pin pin = rig.tiers->pin(id, rig.host).value();
  pin.mark_dirty();
  CHECK(!rig.tiers->spilled(id));
  rig.memory_store->resume();
  CHECK(!pin.ready().wait().ok());
  pin.release();
  rig.settle();
  CHECK(rig.tiers->spilled(id));
  CHECK(holds(rig.fetched(id, rig.host).data(), 5000, 1));
}

TEST_CASE("faults: a change to a copy of a changed copy falls back with it") {
  Rig rig(three_tiers());
  const BlockId id = rig.make(5000, rig.host, 1);
  rig.evicted(id, rig.host);
  rig.memory_store->hold();
  rig.memory_store->fail_request(1);
  REQUIRE(rig.tiers->fetch(id, rig.host).ok());
  Pin low = rig.tiers->pin(id, rig.host).value();
  low.mark_dirty();
  REQUIRE(rig.tiers->fetch(id, rig.device).ok());
  Pin high = rig.tiers->pin(id, rig.device).value();
  high.mark_dirty();
  rig.memory_store->resume();
  CHECK(!high.ready().wait().ok());
  low.release();
  high.release();
  rig.settle();
  CHECK(rig.host_budget.used() == 0);
  CHECK(rig.device_budget.used() == 0);
  CHECK(holds(rig.fetched(id, rig.device).data(), 5000, 1));
}

TEST_CASE("cancel: a load that nobody pinned ends early, one that is pinned does not") {
  Rig rig;
  rig.memory_store->hold();
  const BlockId a = rig.add_home({{{}, 0, 5000}, {{}, 9000, 10}}).value(), b = rig.home(8192, 5000);
  const BlockId both[] = {a, b};
  size_t done = 0;
  REQUIRE(rig.tiers->fetch(both, rig.host, done).ok());
  Pin pin = rig.tiers->pin(b, rig.host).value();
  rig.tiers->cancel(a, rig.host);
  rig.tiers->cancel(b, rig.host);
  rig.tiers->pending(rig.host).wait().ignore();
  rig.tiers->poll();
  CHECK(rig.tiers->state(a, rig.host) == CopyState::absent);
  CHECK(rig.tiers->transfers().cancelled == 1);
  CHECK(!pin.ready().done());
  rig.memory_store->resume();
  CHECK(pin.ready().wait().ok());
  CHECK(rig.holds_file(pin));
  CHECK(rig.holds_file(rig.fetched(a, rig.host)));
}

TEST_CASE("cancel: evicting and dropping what is loading ends the load") {
  Rig rig;
  rig.memory_store->hold();
  const BlockId a = rig.home(0, 5000), b = rig.home(8192, 5000);
  REQUIRE(rig.tiers->fetch(a, rig.host).ok());
  REQUIRE(rig.tiers->fetch(b, rig.host).ok());
  REQUIRE(rig.tiers->evict(a, rig.host).ok());
  CHECK(rig.tiers->pin(a, rig.host).status().code() == Code::not_found);
  rig.tiers->drop(b);
  rig.settle();
  CHECK(rig.tiers->transfers().cancelled == 2);
  CHECK(rig.host_budget.used() == 0);
  rig.memory_store->resume();
}

TEST_CASE("destructor: cancels what a stuck store would never end") {
  for (const bool on_device : {false, true}) {
    Rig rig(three_tiers());
    const TierId tier = on_device ? rig.device : rig.host;
    const BlockId page = rig.make(4096, rig.host, 1);
    if (!on_device) rig.memory_store->hold();
    REQUIRE(rig.tiers->evict(page, rig.host).ok());
    REQUIRE(rig.tiers->fetch(rig.add_home({{{}, 0, 50000}, {{}, 9000, 10}}).value(), tier).ok());
    REQUIRE(rig.tiers->fetch(rig.home(8000, 20), tier).ok());
    rig.tiers.reset();
  }
}

TEST_CASE("release: more Timelines than a copy can remember make the last release wait") {
  Rig rig;
  std::array<Timeline, 6> lines;
  const BlockId id = rig.home(0, 100);
  rig.fetched(id, rig.host);
  std::thread signaller([&] {
    for (Timeline& line : lines) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      line.signal(1);
    }
  });
  for (Timeline& line : lines) rig.ready_pin(id, rig.host).release(Event(line, 1));
  CHECK(lines[0].value() == 1);
  rig.evicted(id, rig.host);
  for (Timeline& line : lines) CHECK(line.value() == 1);
  signaller.join();
}

}  // namespace
}  // namespace sluice::testing
