#include "tests/tier/tier_contract.h"

#include <cstdio>
#include <filesystem>

#include "storage/open_store.h"

namespace sluice::testing {
namespace {

std::unique_ptr<Rig> plain(const RigOptions& o) { return std::make_unique<Rig>(o); }
std::unique_ptr<Rig> shuffled(const RigOptions& o) {
  RigOptions slow = o;
  slow.store = {.slots = 3, .latency = std::chrono::microseconds(20), .shuffle = true, .seed = 5};
  slow.queue = {.bytes_per_s = 5e9, .latency = std::chrono::microseconds(5), .ring = 4};
  return std::make_unique<Rig>(slow);
}

TEST_CASE("tier contract: files in memory, host tier") { tier_contract(plain, false); }
TEST_CASE("tier contract: files in memory, device tier") { tier_contract(plain, true); }
TEST_CASE("tier contract: slow store out of order, host tier") { tier_contract(shuffled, false); }
TEST_CASE("tier contract: slow store out of order, device tier") { tier_contract(shuffled, true); }

// A directory with the file that rigs read, gone at the end.
class Directory {
 public:
  Directory() {
    char name[] = "/var/tmp/sluice-tier-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path_ = name;
    std::vector<std::byte> bytes(Rig::file_bytes);
    fill(bytes.data(), bytes.size(), Rig::file_seed);
    std::FILE* f = std::fopen(file().c_str(), "wb");
    REQUIRE(f != nullptr);
    REQUIRE(std::fwrite(bytes.data(), 1, bytes.size(), f) == bytes.size());
    std::fclose(f);
  }
  ~Directory() { std::filesystem::remove_all(path_); }
  std::string file() const { return path_ + "/data"; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void on_real_store(const storage::StoreOptions& store_options, bool on_device) {
  const Directory directory;
  tier_contract(
      [&](const RigOptions& o) {
        std::vector<std::string> warnings;
        auto store = storage::open_store(store_options, &warnings);
        REQUIRE_MESSAGE(store.ok(), store.status().message());
        RigOptions with_directory = o;
        with_directory.spill_directory = directory.path();
        return std::make_unique<Rig>(with_directory, std::move(*store), directory.file());
      },
      on_device);
}

TEST_CASE("tier contract: the machine's best store, host tier") { on_real_store({}, false); }
TEST_CASE("tier contract: the machine's best store, device tier") { on_real_store({}, true); }
TEST_CASE("tier contract: pread store, host tier") {
  storage::StoreOptions o;
  o.force_pread = true;
  on_real_store(o, false);
}

}  // namespace
}  // namespace sluice::testing
