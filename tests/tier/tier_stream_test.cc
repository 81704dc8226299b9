// The tier manager used alone, with no model: a list of tensors in a real file passes cyclically through
// a ring of little memory, while pages of state, too many for it, go to a real spill file and come back.
#include <cstdio>
#include <filesystem>

#include "storage/open_store.h"
#include "tests/tier/rig.h"

namespace sluice::testing {
namespace {

using tier::Pin;

struct Tensors {
  std::vector<Extent> extents;
  uint64_t bytes = 0;
};

// As a model file of 200 MB has them, a hundred times smaller: many of a kind, odd sizes, 32-byte aligned.
Tensors write_tensors(const std::string& path) {
  Tensors tensors;
  uint64_t offset = 1984;
  for (int layer = 0; layer < 12; ++layer)
    for (const uint64_t bytes : {2304ull, 36864ull, 12288ull, 12320ull, 36864ull, 32768ull + 64, 31744ull}) {
      tensors.extents.push_back({FileId{}, offset, bytes});
      tensors.bytes += bytes;
      offset += bytes + 32;
    }
  std::vector<std::byte> content(offset);
  fill(content.data(), offset, 3);
  std::FILE* f = std::fopen(path.c_str(), "wb");
  REQUIRE(f != nullptr);
  REQUIRE(std::fwrite(content.data(), 1, offset, f) == offset);
  std::fclose(f);
  return tensors;
}

class Loop {
 public:
  Loop(tier::TierManager& tiers, TierId tier) : tiers_(tiers), tier_(tier) {}

  // Fetches, making room by waiting for what is on its way out.
  void fetch(BlockId id) {
    for (;;) {
      const Status status = tiers_.fetch(id, tier_);
      if (status.ok()) return;
      REQUIRE_MESSAGE(status.code() == Code::over_budget, status.message());
      wait_for_room();
    }
  }
  Pin create(BlockId id) {
    for (;;) {
      auto pin = tiers_.create(id, tier_);
      if (pin.ok()) return std::move(*pin);
      REQUIRE(pin.status().code() == Code::over_budget);
      wait_for_room();
    }
  }

 private:
  void wait_for_room() {
    const Event next = tiers_.pending(tier_);
    REQUIRE(!(next == Event()));
    REQUIRE(next.wait().ok());
    tiers_.poll();
  }
  tier::TierManager& tiers_;
  TierId tier_;
};

void stream(const storage::StoreOptions& store_options) {
  char name[] = "/var/tmp/sluice-stream-XXXXXX";
  REQUIRE(mkdtemp(name) != nullptr);
  const std::string directory = name;
  const Tensors tensors = write_tensors(directory + "/tensors");
  constexpr uint64_t budget_bytes = 160 * KiB, page_bytes = 10000;
  constexpr int passes = 3, pages = 30;

  SimMemory memory(1 * MiB, true);
  tier::Budget budget("ram", budget_bytes);
  std::vector<std::string> warnings;
  auto store = storage::open_store(store_options, &warnings);
  REQUIRE_MESSAGE(store.ok(), store.status().message());
  {
    tier::TierManager tiers({store->get(), directory, 1 * MiB, 256});
    const TierId host = tiers.add_tier("host", memory, budget);
    Loop loop(tiers, host);
    auto file = (*store)->open(directory + "/tensors");
    REQUIRE(file.ok());
    std::vector<BlockId> ids;
    for (Extent e : tensors.extents) {
      e.file = *file;
      ids.push_back(tiers.add_block(BlockKind::weight, {e}).value());
    }
    std::vector<BlockId> state;
    for (size_t i = 0; i < ids.size() * passes; ++i) {
      for (size_t ahead = i; ahead < std::min(i + 2, ids.size() * passes); ++ahead) loop.fetch(ids[ahead % ids.size()]);
      const Extent& e = tensors.extents[i % ids.size()];
      Pin pin = tiers.pin(ids[i % ids.size()], host).value();
      REQUIRE(pin.ready().wait().ok());
      CHECK(holds(pin.data(), e.bytes, 3, e.offset));
      pin.release();
      REQUIRE(tiers.evict(ids[i % ids.size()], host).ok());
      if (i % 8 == 0 && state.size() < pages) {
        state.push_back(tiers.add_block(BlockKind::kv_page, page_bytes).value());
        Pin page = loop.create(state.back());
        fill(page.data(), page_bytes, 1000 + state.size());
        page.release();
        REQUIRE(tiers.evict(state.back(), host).ok());
      }
    }
    REQUIRE(state.size() == pages);
    while (!(tiers.pending(host) == Event())) {
      tiers.pending(host).wait().ignore();
      tiers.poll();
    }
    CHECK(tiers.stats(host).bytes_in == passes * tensors.bytes);
    CHECK((*store)->stats().bytes_read == passes * tensors.bytes);
    CHECK(tiers.stats(host).bytes_out == pages * page_bytes);
    for (size_t i = 0; i < state.size(); ++i) {
      loop.fetch(state[i]);
      Pin page = tiers.pin(state[i], host).value();
      REQUIRE(page.ready().wait().ok());
      CHECK(holds(page.data(), page_bytes, 1001 + i));
      page.release();
      REQUIRE(tiers.evict(state[i], host).ok());
    }
    CHECK((*store)->stats().writes == pages);  // clean pages are not written again
    CHECK(budget.peak() <= budget_bytes);
  }
  CHECK(budget.used() == 0);
  CHECK((*store)->stats().in_flight == 0);
  store->reset();
  std::filesystem::remove_all(directory);
}

TEST_CASE("stream: tensors pass through little memory, pages spill, on the machine's best store") { stream({}); }
TEST_CASE("stream: the same on the pread store") {
  storage::StoreOptions o;
  o.force_pread = true;
  stream(o);
}

}  // namespace
}  // namespace sluice::testing
