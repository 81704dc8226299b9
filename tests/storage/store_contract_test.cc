#include <doctest/doctest.h>

#include "storage/pread_store.h"
#include "storage/uring_store.h"
#include "tests/storage/store_contract.h"
#include "tests/support/faulty_store.h"

namespace sluice::testing {
namespace {

using storage::LoadMode;
using storage::StoreOptions;

StoreFactory uring(LoadMode mode, uint32_t ring_choice = 0, uint32_t depth = 64) {
  return [=](const StoreOptions& given) {
    StoreOptions options = given;
    options.mode = mode;
    options.ring_choice = ring_choice;
    options.queue_depth = depth;
    auto store = storage::make_uring_store(options);
    REQUIRE_MESSAGE(store.ok(), store.status().message());
    return std::move(store).value();
  };
}

StoreFactory pread(LoadMode mode) {
  return [=](const StoreOptions& given) {
    StoreOptions options = given;
    options.mode = mode;
    auto store = storage::make_pread_store(options);
    REQUIRE_MESSAGE(store.ok(), store.status().message());
    return std::move(store).value();
  };
}

// A wrapper together with what it wraps.
class Owner final : public Store {
 public:
  Owner(std::unique_ptr<Store> inner, std::unique_ptr<Store> outer)
      : inner_(std::move(inner)), outer_(std::move(outer)) {}
  Result<FileId> open(const std::string& path) override { return outer_->open(path); }
  Result<FileId> create_spill(const std::string& directory, uint64_t bytes) override {
    return outer_->create_spill(directory, bytes);
  }
  void close(FileId file) override { outer_->close(file); }
  uint64_t size(FileId file) const override { return outer_->size(file); }
  void submit(std::span<const IoRequest> r, std::span<Event> e) override { outer_->submit(r, e); }
  void cancel(std::span<const Event> events) override { outer_->cancel(events); }
  void use_region(std::span<std::byte> region) override { outer_->use_region(region); }
  StoreStats stats() const override { return outer_->stats(); }
  std::string describe() const override { return outer_->describe(); }

 private:
  std::unique_ptr<Store> inner_, outer_;
};

TEST_CASE("store contract: io_uring, auto") { store_contract(uring(LoadMode::automatic)); }
TEST_CASE("store contract: io_uring, direct") { store_contract(uring(LoadMode::direct)); }
TEST_CASE("store contract: io_uring, buffered") { store_contract(uring(LoadMode::buffered)); }
TEST_CASE("store contract: io_uring, cooperative ring") { store_contract(uring(LoadMode::direct, 1)); }
TEST_CASE("store contract: io_uring, plain ring, one deep") { store_contract(uring(LoadMode::direct, 2, 1)); }
TEST_CASE("store contract: pread, auto") { store_contract(pread(LoadMode::automatic)); }
TEST_CASE("store contract: pread, direct") { store_contract(pread(LoadMode::direct)); }
TEST_CASE("store contract: pread, buffered") { store_contract(pread(LoadMode::buffered)); }

TEST_CASE("store contract: a faulty store without faults") {
  store_contract([](const StoreOptions& options) {
    auto inner = uring(LoadMode::automatic)(options);
    auto outer = std::make_unique<FaultyStore>(*inner);
    return std::make_unique<Owner>(std::move(inner), std::move(outer));
  });
}

TEST_CASE("store contract: a slow store") {
  store_contract([](const StoreOptions& options) {
    auto inner = uring(LoadMode::automatic)(options);
    const SlowStore::Model model{.bytes_per_second = 2e9, .latency_ns = 50'000, .slots = options.slots};
    auto outer = std::make_unique<SlowStore>(*inner, model);
    return std::make_unique<Owner>(std::move(inner), std::move(outer));
  });
}

}  // namespace
}  // namespace sluice::testing
