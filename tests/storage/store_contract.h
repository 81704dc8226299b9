// The contract of core/store.h as tests. A new Store gets all of them so:
//
//   TEST_CASE("contract: my store") {
//     store_contract([](const storage::StoreOptions& options) { return make_my_store(options); });
//   }
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/store.h"
#include "storage/store_options.h"

namespace sluice::testing {

// Makes the store under test with the given slots and piece_bytes, where it has such things.
using StoreFactory = std::function<std::unique_ptr<Store>(const storage::StoreOptions&)>;
void store_contract(const StoreFactory& make);

// A directory of its own on the disk, removed with all that is in it.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  std::string file(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

// Content that every byte's place and a seed decide; never zero, so that zeros cannot pass for it.
std::byte pattern(uint64_t offset, uint64_t seed);
void fill_pattern(std::span<std::byte> bytes, uint64_t offset, uint64_t seed);
void write_pattern_file(const std::string& path, uint64_t bytes, uint64_t seed);

// Memory for the slot of one extent with a guard on both sides.
class SlotMemory {
 public:
  explicit SlotMemory(const Extent& extent);
  std::byte* slot() { return base_ + io_unit; }
  std::span<std::byte> payload() { return {slot() + payload_offset(extent_), static_cast<size_t>(extent_.bytes)}; }
  bool holds(uint64_t seed);  // the payload is the pattern of its extent
  bool guards_intact() const;

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  Extent extent_;
  uint64_t bytes_;
  std::unique_ptr<std::byte[], Free> memory_;
  std::byte* base_;
};

// Requests with their memory and Events, submitted together.
struct Batch {
  explicit Batch(std::vector<Extent> extents, IoRequest::Op op = IoRequest::Op::read);
  void submit(Store& store) { store.submit(requests, events); }
  std::vector<Extent> extents;
  std::vector<SlotMemory> memory;
  std::vector<IoRequest> requests;
  std::vector<Event> events;
};

// One request from submission to end.
Status transfer(Store& store, IoRequest::Op op, const Extent& extent, std::byte* slot);

// Open descriptors and threads of this process; taken before a store is made, equal() after it is gone.
struct ProcessCounts {
  size_t descriptors, threads;
  static ProcessCounts now();
  bool operator==(const ProcessCounts&) const = default;
};
// Threads that were joined may still be listed for a moment.
bool returns_to(const ProcessCounts& before);

}  // namespace sluice::testing
