#include <doctest/doctest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

#include "tests/storage/store_contract.h"

namespace sluice::testing {
namespace fs = std::filesystem;

TempDir::TempDir() {
  std::string name = std::string(SLUICE_BINARY_DIR) + "/store-test-XXXXXX";
  REQUIRE(mkdtemp(name.data()) != nullptr);
  path_ = name;
}

TempDir::~TempDir() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::byte pattern(uint64_t offset, uint64_t seed) {
  uint64_t x = (offset / 8 + 1) * 0x9E3779B97F4A7C15ull ^ (seed * 0xBF58476D1CE4E5B9ull);
  x = (x ^ (x >> 29)) * 0x94D049BB133111EBull;
  return static_cast<std::byte>((x >> (offset % 8 * 8) & 0xFF) | 1);
}

void fill_pattern(std::span<std::byte> bytes, uint64_t offset, uint64_t seed) {
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = pattern(offset + i, seed);
}

void write_pattern_file(const std::string& path, uint64_t bytes, uint64_t seed) {
  std::vector<std::byte> content(bytes);
  fill_pattern(content, 0, seed);
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(bytes));
  REQUIRE(out.good());
}

SlotMemory::SlotMemory(const Extent& extent) : extent_(extent), bytes_(slot_bytes(extent) + 2 * io_unit) {
  memory_.reset(static_cast<std::byte*>(std::aligned_alloc(io_unit, bytes_)));
  base_ = memory_.get();
  std::memset(base_, 0xA5, bytes_);
}

bool SlotMemory::holds(uint64_t seed) {
  const auto bytes = payload();
  for (size_t i = 0; i < bytes.size(); ++i)
    if (bytes[i] != pattern(extent_.offset + i, seed)) return false;
  return true;
}

bool SlotMemory::guards_intact() const {
  for (uint64_t i = 0; i < io_unit; ++i)
    if (base_[i] != std::byte{0xA5} || base_[bytes_ - 1 - i] != std::byte{0xA5}) return false;
  return true;
}

Batch::Batch(std::vector<Extent> all, IoRequest::Op op) : extents(std::move(all)), events(extents.size()) {
  for (const Extent& e : extents) {
    memory.emplace_back(e);
    requests.push_back({op, e, memory.back().slot()});
  }
}

Status transfer(Store& store, IoRequest::Op op, const Extent& extent, std::byte* slot) {
  const IoRequest request{op, extent, slot};
  Event event;
  store.submit({&request, 1}, {&event, 1});
  return event.wait();
}

namespace {
size_t entries(const char* directory) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(directory), fs::directory_iterator()));
}
}  // namespace

ProcessCounts ProcessCounts::now() { return {entries("/proc/self/fd"), entries("/proc/self/task")}; }

bool returns_to(const ProcessCounts& before) {
  for (int i = 0; i < 200; ++i) {
    if (ProcessCounts::now() == before) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

}  // namespace sluice::testing
