// What Stores promise beyond the contract: faults at every place, traces, and no allocation.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "storage/open_store.h"
#include "tests/storage/store_contract.h"
#include "tests/support/faulty_store.h"

namespace {
std::atomic<uint64_t> allocations{0};
}

// Counted for the whole test program. Weak: a sanitizer that brings its own keeps it, and nothing is counted.
[[gnu::weak]] void* operator new(size_t bytes) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* p = std::malloc(bytes)) return p;
  throw std::bad_alloc();
}
[[gnu::weak]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::weak]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace sluice::testing {
namespace {

using namespace storage;
using Op = IoRequest::Op;

TEST_CASE("store: a fault at any place fails that request alone") {
  TempDir directory;
  write_pattern_file(directory.file("f"), 500'000, 4);
  auto inner = open_store({}, nullptr);
  REQUIRE(inner.ok());
  auto file = (*inner)->open(directory.file("f"));
  REQUIRE(file.ok());
  std::vector<Extent> extents;
  for (uint64_t i = 0; i < 12; ++i) extents.push_back({*file, i * 40'000 + 17, 30'000});
  for (const auto kind : {Fault::Kind::eio, Fault::Kind::shrunk, Fault::Kind::cancelled}) {
    FaultyStore store(**inner);
    for (uint64_t nth = 1; nth <= extents.size() + 1; ++nth) {
      store.set({kind, Op::read, nth, nth > 10});
      Batch batch(extents);
      batch.submit(store);
      for (size_t i = 0; i < extents.size(); ++i) {
        const Status status = batch.events[i].wait();
        const bool struck = i + 1 == nth || (nth > 10 && i + 1 > nth);
        CHECK(status.ok() == !struck);
        CHECK(batch.memory[i].holds(4) == !struck);
        if (struck) CHECK(status.code() == (kind == Fault::Kind::cancelled ? Code::cancelled : Code::io_error));
      }
    }
    store.clear();
    Batch batch(extents);
    batch.submit(store);
    for (Event& event : batch.events) CHECK(event.wait().ok());
  }
}

TEST_CASE("store: a slow store takes the time of its model, and cancelling ends the wait") {
  TempDir directory;
  write_pattern_file(directory.file("f"), MiB, 4);
  auto inner = open_store({}, nullptr);
  REQUIRE(inner.ok());
  SlowStore store(**inner, {.bytes_per_second = 10e6, .latency_ns = 20'000'000, .slots = 4});
  auto file = store.open(directory.file("f"));
  REQUIRE(file.ok());
  Batch batch({{*file, 0, 100'000}, {*file, 100'000, 100'000}});
  const uint64_t begin = now_ns();
  batch.submit(store);
  for (Event& event : batch.events) CHECK(event.wait().ok());
  CHECK(now_ns() - begin >= 40'000'000 - 1'000'000);
  Batch endless({{*file, 0, MiB}, {*file, 0, MiB}, {*file, 0, MiB}});
  const uint64_t start = now_ns();
  endless.submit(store);
  store.cancel(endless.events);
  for (Event& event : endless.events) CHECK(event.wait().code() == Code::cancelled);
  CHECK(now_ns() - start < 100'000'000);
}

TEST_CASE("store: spans on the lane of the disk carry all bytes and do not overlap") {
  for (const bool force_pread : {false, true}) {
    TempDir directory;
    write_pattern_file(directory.file("f"), MiB, 4);
    Trace trace(1000);
    auto store = open_store({.piece_bytes = 64 * KiB, .force_pread = force_pread, .trace = &trace}, nullptr);
    REQUIRE(store.ok());
    auto file = (*store)->open(directory.file("f"));
    REQUIRE(file.ok());
    std::vector<Extent> extents;
    for (uint64_t i = 0; i < 50; ++i) extents.push_back({*file, i * 1000, 300'000});
    Batch batch(extents);
    const uint64_t begin = now_ns();
    batch.submit(**store);
    for (Event& event : batch.events) CHECK(event.wait().ok());
    const uint64_t end = now_ns();
    REQUIRE(trace.size() == 50);
    uint64_t bytes = 0, last = begin;
    for (size_t i = 0; i < trace.size(); ++i) {
      CHECK(std::strcmp(trace[i].lane, "disk") == 0);
      CHECK(trace[i].start_ns >= last);
      CHECK(trace[i].end_ns >= trace[i].start_ns);
      last = trace[i].end_ns;
      bytes += trace[i].bytes;
    }
    CHECK(last <= end);
    CHECK(bytes == 50 * 300'000);
    CHECK((*store)->stats().busy_ns <= end - begin);
  }
}

TEST_CASE("store: the steady state allocates nothing") {
  if (allocations == 0) {
    MESSAGE("allocations are not counted under this sanitizer");
    return;
  }
  for (const bool force_pread : {false, true}) {
    TempDir directory;
    write_pattern_file(directory.file("f"), 3 * MiB, 4);
    Trace trace(10'000);
    auto store = open_store({.slots = 16, .force_pread = force_pread, .trace = &trace}, nullptr);
    REQUIRE(store.ok());
    auto file = (*store)->open(directory.file("f"));
    auto spill = (*store)->create_spill(directory.path(), 4 * MiB);
    REQUIRE(file.ok());
    REQUIRE(spill.ok());
    std::vector<Extent> from, to;
    for (uint64_t i = 0; i < 20; ++i) from.push_back({*file, i * 1000 + 3, 2 * MiB});
    for (uint64_t i = 0; i < 4; ++i) to.push_back({*spill, i * MiB, MiB});
    Batch reads(from), writes(to, Op::write);
    bool all_ok = true;
    const auto round = [&] {
      reads.submit(**store);
      writes.submit(**store);
      for (Event& event : reads.events) all_ok &= event.wait().ok();
      for (Event& event : writes.events) all_ok &= event.wait().ok();
      (*store)->cancel(reads.events);
    };
    round();
    const uint64_t before = allocations.load();
    for (int i = 0; i < 5; ++i) round();
    CHECK(allocations.load() == before);
    CHECK(all_ok);
  }
}

// More failures than a Timeline remembers, on every slot.
TEST_CASE("store: many failures one after the other are all told") {
  auto store = open_store({.slots = 4}, nullptr);
  REQUIRE(store.ok());
  SlotMemory memory({FileId{0}, 0, 100});
  for (int i = 0; i < 1000; ++i) CHECK(!transfer(**store, Op::read, {FileId{0}, 0, 100}, memory.slot()).ok());
  CHECK((*store)->stats().failed == 1000);
}

}  // namespace
}  // namespace sluice::testing
