#include "tests/storage/store_contract.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <random>
#include <thread>

namespace sluice::testing {
namespace {

using Op = IoRequest::Op;
constexpr uint64_t seed = 7;
constexpr uint64_t file_bytes = 3 * MiB + 1234;
const storage::StoreOptions small{.slots = 8, .piece_bytes = 64 * KiB};

std::vector<Extent> random_extents(FileId file, size_t n, uint64_t max_bytes, uint32_t random_seed) {
  std::mt19937_64 random(random_seed);
  std::vector<Extent> extents;
  for (size_t i = 0; i < n; ++i) {
    const uint64_t bytes = 1 + random() % (i % 2 == 0 ? max_bytes : 300);
    extents.push_back({file, random() % (file_bytes - bytes + 1), bytes});
  }
  return extents;
}

std::vector<Extent> edge_extents(FileId file) {
  return {{file, 0, file_bytes},
          {file, 0, 1},
          {file, file_bytes - 1, 1},
          {file, 4095, 2},
          {file, 4096, 4096},
          {file, 4096 * 3, 0},
          {file, 5, 0},
          {file, file_bytes, 0},
          {file, 64 * KiB - 1, 64 * KiB + 2},
          {file, 64 * KiB, 64 * KiB},
          {file, 8191, 1},
          {file, file_bytes - 1234, 1234},
          {file, 1, 2 * MiB},
          {file, 32, MiB - 4096},
          {file, file_bytes - 5000, 5000}};
}

void reads_are_right(Store& store, FileId file) {
  auto extents = random_extents(file, 120, 200 * KiB, 1);
  for (const Extent& e : edge_extents(file)) extents.push_back(e);
  Batch batch(extents);  // many more than slots
  batch.submit(store);
  uint64_t payload = 0, units = 0;
  for (size_t i = 0; i < extents.size(); ++i) {
    const Status status = batch.events[i].wait();
    CHECK_MESSAGE(status.ok(), status.message());
    CHECK(batch.memory[i].holds(seed));
    CHECK(batch.memory[i].guards_intact());
    payload += extents[i].bytes;
    units += slot_bytes(extents[i]);
  }
  const StoreStats stats = store.stats();
  CHECK(stats.reads == extents.size());
  CHECK(stats.bytes_read == payload);
  CHECK(stats.disk_bytes_read >= payload);
  CHECK(stats.disk_bytes_read <= units);
  CHECK(stats.bytes_read_buffered <= payload);
  CHECK(stats.failed == 0);
  CHECK(stats.in_flight == 0);
  CHECK(stats.busy_ns > 0);
}

void writes_come_back(Store& store, const std::string& directory) {
  const uint64_t bytes = MiB + 777;
  auto spill = store.create_spill(directory, bytes);
  REQUIRE_MESSAGE(spill.ok(), spill.status().message());
  CHECK(store.size(*spill) == bytes);
  Batch writes({{*spill, 0, 4096}, {*spill, 8192, 300 * KiB}, {*spill, 512 * KiB, 1}, {*spill, MiB, 777}}, Op::write);
  for (SlotMemory& m : writes.memory) {
    const size_t i = static_cast<size_t>(&m - writes.memory.data());
    fill_pattern(m.payload(), writes.extents[i].offset, seed);
  }
  writes.submit(store);
  for (Event& event : writes.events) CHECK(event.wait().ok());
  std::vector<Extent> again = writes.extents;
  again.push_back({*spill, 8192 + 123, 200 * KiB + 1});
  again.push_back({*spill, MiB + 700, 77});
  Batch reads(again);
  reads.submit(store);
  for (size_t i = 0; i < again.size(); ++i) {
    CHECK(reads.events[i].wait().ok());
    CHECK(reads.memory[i].holds(seed));
  }
  const StoreStats stats = store.stats();
  CHECK(stats.writes == writes.extents.size());
  CHECK(stats.bytes_written == 4096 + 300 * KiB + 1 + 777);
  store.close(*spill);
}

void bad_requests_fail(Store& store, FileId file, const std::string& path, const std::string& directory) {
  auto other = store.open(path);
  auto spill = store.create_spill(directory, 64 * KiB);
  REQUIRE(other.ok());
  REQUIRE(spill.ok());
  store.close(*other);
  CHECK(store.size(*other) == 0);
  SlotMemory memory({file, 0, 64 * KiB});
  std::byte* slot = memory.slot();
  const auto fails = [&](Op op, const Extent& e, std::byte* at, const char* text) {
    const Status status = transfer(store, op, e, at);
    CHECK(!status.ok());
    CHECK_MESSAGE(status.message().find(text) != std::string::npos, status.message());
  };
  fails(Op::read, {*other, 0, 10}, slot, "not open");
  fails(Op::read, {FileId{12345}, 0, 10}, slot, "not open");
  fails(Op::read, {FileId{}, 0, 0}, slot, "not open");
  fails(Op::read, {file, UINT64_MAX - 5, 100}, slot, "wraps");
  fails(Op::read, {file, 100, UINT64_MAX - 50}, slot, "wraps");
  fails(Op::read, {file, file_bytes, 1}, slot, path.c_str());
  fails(Op::read, {file, file_bytes - 10, 11}, slot, "past the end");
  fails(Op::read, {file, UINT64_MAX / 2, 100}, slot, "past the end");
  fails(Op::read, {file, 0, 10}, slot + 32, "aligned");
  fails(Op::write, {file, 0, 10}, slot, "reading only");
  fails(Op::write, {*spill, 1, 10}, slot, "multiple of 4096");
  fails(Op::write, {*spill, 64 * KiB, 1}, slot, "past the end");
  CHECK(store.stats().failed == 12);
  CHECK(transfer(store, Op::read, {file, 0, 10}, slot).ok());
  CHECK(store.stats().in_flight == 0);

  const auto missing = store.open(directory + "/nothing-here");
  CHECK(missing.status().code() == Code::not_found);
  CHECK(missing.status().message().find("nothing-here") != std::string::npos);
  CHECK(!store.open(directory).ok());
  const auto nowhere = store.create_spill(directory + "/nothing-here", 4096);
  CHECK(nowhere.status().code() == Code::io_error);
  CHECK(nowhere.status().message().find("nothing-here") != std::string::npos);
  const auto huge = store.create_spill(directory, uint64_t{1} << 60);
  CHECK(huge.status().code() == Code::io_error);
  CHECK(huge.status().message().find(directory) != std::string::npos);
  CHECK(huge.status().message().find("1152921504606846976") != std::string::npos);
}

// Whatever the moment: the right bytes or an error that names the file, never zeros.
void shrinking_is_an_error(Store& store, const std::string& path) {
  for (const uint64_t left : {MiB + 4096, MiB + 1, uint64_t{0}}) {
    write_pattern_file(path, file_bytes, seed);
    auto file = store.open(path);
    REQUIRE(file.ok());
    Batch batch(random_extents(*file, 60, 100 * KiB, 2));
    std::thread submitter([&] { batch.submit(store); });
    REQUIRE(truncate(path.c_str(), static_cast<off_t>(left)) == 0);
    submitter.join();
    for (size_t i = 0; i < batch.extents.size(); ++i) {
      const Status status = batch.events[i].wait();
      if (status.ok()) CHECK(batch.memory[i].holds(seed));
      if (!status.ok()) CHECK(status.code() == Code::io_error);
      if (!status.ok()) CHECK(status.message().find(path) != std::string::npos);
    }
    SlotMemory memory({*file, left, 5000});
    CHECK(transfer(store, Op::read, {*file, left, 5000}, memory.slot()).code() == Code::io_error);
    store.close(*file);
  }
}

void replacing_is_noticed(Store& store, const std::string& path) {
  write_pattern_file(path, file_bytes, seed);
  auto file = store.open(path);
  REQUIRE(file.ok());
  SlotMemory memory({*file, 100, 9000});
  // Renamed over: the file that was opened is still there, whole.
  write_pattern_file(path + ".new", file_bytes, seed + 1);
  REQUIRE(rename((path + ".new").c_str(), path.c_str()) == 0);
  CHECK(transfer(store, Op::read, {*file, 100, 9000}, memory.slot()).ok());
  CHECK(memory.holds(seed));
  store.close(*file);
  // Written over in place.
  file = store.open(path);
  REQUIRE(file.ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the grain of time stamps
  write_pattern_file(path, file_bytes, seed + 2);
  const Status status = transfer(store, Op::read, {*file, 100, 9000}, memory.slot());
  CHECK(status.code() == Code::io_error);
  CHECK(status.message().find("changed") != std::string::npos);
  store.close(*file);
}

void cancelling_ends_each_once(Store& store, FileId file) {
  store.cancel({});
  uint64_t submitted = 0;
  const StoreStats before = store.stats();
  for (uint32_t round = 0; round < 8; ++round) {
    Batch batch(random_extents(file, 40, 300 * KiB, 10 + round));
    std::atomic<bool> go{false};
    std::thread canceller([&] {
      while (!go) std::this_thread::yield();
      store.cancel(batch.events);
    });
    std::span<const IoRequest> requests(batch.requests);
    store.submit(requests, batch.events);
    go = true;
    Event nothing;
    store.cancel({&nothing, 1});
    if (round % 2 == 0) store.cancel(batch.events);
    for (size_t i = 0; i < batch.extents.size(); ++i) {
      const Status status = batch.events[i].wait();
      CHECK((status.ok() || status.code() == Code::cancelled));
      if (status.ok()) CHECK(batch.memory[i].holds(seed));
    }
    canceller.join();
    store.cancel(batch.events);  // too late for all
    for (size_t i = 0; i < batch.extents.size(); ++i) CHECK(batch.memory[i].guards_intact());
    submitted += batch.extents.size();
  }
  const StoreStats stats = store.stats();
  CHECK(stats.reads + stats.failed - before.reads - before.failed == submitted);
  CHECK(stats.in_flight == 0);
}

void cancelling_ends_early(Store& store, FileId file) {
  bool seen = false;
  for (int round = 0; round < 200 && !seen; ++round) {
    Batch batch(std::vector<Extent>(8, {file, 4096, 3 * MiB - 4096}));
    batch.submit(store);
    store.cancel(batch.events);
    for (Event& event : batch.events) seen |= event.wait().code() == Code::cancelled;
  }
  CHECK(seen);
  SlotMemory memory({file, 5, 100'000});
  CHECK(transfer(store, Op::read, {file, 5, 100'000}, memory.slot()).ok());
  CHECK(memory.holds(seed));
}

void destruction_ends_everything(std::unique_ptr<Store> store, const std::string& path) {
  auto file = store->open(path);
  REQUIRE(file.ok());
  std::vector<Extent> extents;
  for (uint64_t i = 0; i < 6; ++i) extents.push_back({*file, i * 4096 + 9, 2 * MiB});
  Batch batch(extents);
  batch.submit(*store);
  store.reset();
  // Nobody may write to the memory any more.
  for (SlotMemory& m : batch.memory) std::memset(m.payload().data(), 0x11, m.payload().size());
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  for (SlotMemory& m : batch.memory)
    for (std::byte b : m.payload())
      if (b != std::byte{0x11}) FAIL("a read went on after the store was gone");
}

void submitters_do_not_disturb_each_other(Store& store, FileId file, const std::string& directory) {
  auto spill = store.create_spill(directory, 4 * MiB);
  REQUIRE(spill.ok());
  std::atomic<uint32_t> wrong{0};
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint32_t round = 0; round < 6; ++round) {
        Batch reads(random_extents(file, 12, 100 * KiB, 100 * t + round));
        Batch writes({{*spill, t * MiB, 70 * KiB}, {*spill, t * MiB + 512 * KiB, 100}}, Op::write);
        for (size_t i = 0; i < 2; ++i) fill_pattern(writes.memory[i].payload(), writes.extents[i].offset, round);
        reads.submit(store);
        writes.submit(store);
        if (t == 3) store.cancel(reads.events);
        for (Event& event : writes.events) wrong += !event.wait().ok();
        Batch again(writes.extents);
        again.submit(store);
        for (size_t i = 0; i < 2; ++i) wrong += !again.events[i].wait().ok() || !again.memory[i].holds(round);
        for (size_t i = 0; i < reads.events.size(); ++i) {
          const Status status = reads.events[i].wait();
          wrong += status.ok() ? !reads.memory[i].holds(seed) : status.code() != Code::cancelled;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(store.stats().in_flight == 0);
}

// Memory that is said to hold most slots comes and goes, at the same address with other pages beneath too, while
// requests in other memory are under way.
void regions_come_and_go(Store& store, FileId file) {
  constexpr uint64_t bytes = 256 * KiB;
  void* at = nullptr;
  for (int round = 0; round < 6; ++round) {
    void* const mapped = ::mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(mapped != MAP_FAILED);
    at = mapped;
    auto* const slot = static_cast<std::byte*>(mapped);
    Batch elsewhere(random_extents(file, 12, 100 * KiB, 40 + round));
    elsewhere.submit(store);
    store.use_region({slot, bytes});
    const IoRequest request{Op::read, {file, uint64_t(round) * 4096 + 77, 100'000}, slot};
    Event event;
    store.submit({&request, 1}, {&event, 1});
    CHECK(event.wait().ok());
    const std::byte* const payload = slot + payload_offset(request.extent);
    for (uint64_t i = 0; i < request.extent.bytes; ++i)
      if (payload[i] != pattern(request.extent.offset + i, seed)) FAIL("wrong byte ", i, " in round ", round);
    store.use_region({});
    ::munmap(mapped, bytes);
    for (size_t i = 0; i < elsewhere.events.size(); ++i) {
      CHECK(elsewhere.events[i].wait().ok());
      CHECK(elsewhere.memory[i].holds(seed));
    }
  }
}

void closing_waits_for_nobody(Store& store, const std::string& path) {
  const ProcessCounts before = ProcessCounts::now();
  auto file = store.open(path);
  REQUIRE(file.ok());
  Batch batch(random_extents(*file, 7, 300 * KiB, 5));  // fewer than slots: submit() does not wait
  batch.submit(store);
  store.close(*file);
  for (size_t i = 0; i < batch.extents.size(); ++i) {
    CHECK(batch.events[i].wait().ok());
    CHECK(batch.memory[i].holds(seed));
  }
  CHECK(ProcessCounts::now().descriptors == before.descriptors);
  store.close(*file);
  store.close(FileId{});
}

}  // namespace

void store_contract(const StoreFactory& make) {
  const TempDir directory;
  const std::string path = directory.file("model.bin");
  write_pattern_file(path, file_bytes, seed);
  const ProcessCounts before = ProcessCounts::now();
  {
    std::unique_ptr<Store> store = make(small);
    REQUIRE(store);
    auto opened = store->open(path);
    REQUIRE_MESSAGE(opened.ok(), opened.status().message());
    const FileId file = *opened;
    CHECK(store->size(file) == file_bytes);
    CHECK(!store->describe().empty());
    SUBCASE("reads") { reads_are_right(*store, file); }
    SUBCASE("writes") { writes_come_back(*store, directory.path()); }
    SUBCASE("bad requests") { bad_requests_fail(*store, file, path, directory.path()); }
    SUBCASE("a file shrinks") { shrinking_is_an_error(*store, directory.file("shrinks.bin")); }
    SUBCASE("a file is replaced") { replacing_is_noticed(*store, directory.file("replaced.bin")); }
    SUBCASE("cancellation") { cancelling_ends_each_once(*store, file); }
    SUBCASE("early ends") { cancelling_ends_early(*store, file); }
    SUBCASE("destruction") { destruction_ends_everything(std::move(store), path); }
    SUBCASE("many submitters") { submitters_do_not_disturb_each_other(*store, file, directory.path()); }
    SUBCASE("regions") { regions_come_and_go(*store, file); }
    SUBCASE("closing early") { closing_waits_for_nobody(*store, path); }
  }
  CHECK(returns_to(before));
}

}  // namespace sluice::testing
