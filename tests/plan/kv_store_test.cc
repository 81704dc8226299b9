// KvStore by itself: pages written by hand, forked, cut, compacted, sent to disk and brought back.
#include "offload/plan/kv_store.h"

#include <doctest/doctest.h>

#include <cstring>
#include <random>

#include "core/bytes.h"
#include "tests/support/memory_store.h"
#include "tests/support/sim_memory.h"

namespace sluice::testing {
namespace {

using plan::KvStore;

constexpr uint32_t layers = 2, heads = 2, page_tokens = 4, values = 8;  // values: bytes of a head of a token
constexpr uint64_t page_bytes = page_tokens * heads * values;

struct KvRig {
  explicit KvRig(uint32_t group_pages = 0, uint32_t kept = 1000, uint32_t sequences = 4, uint64_t memory_pages = 400)
      : memory(memory_pages * io_unit, true), budget("kv", UINT64_MAX) {
    tier::TierManager::Options o{&store, "spill", 4 * MiB, 4096};
    tiers = std::make_unique<tier::TierManager>(o);
    KvStore::Options options;
    options.pools = {{tiers->add_tier("kv", memory, budget), kept, group_pages, nullptr}};
    options.layer_pool.assign(layers, 0);
    options.n_kv_heads = heads;
    options.page_tokens = page_tokens;
    options.page_bytes = page_bytes;
    options.context = 64;
    options.max_sequences = sequences;
    group = group_pages == 0 ? 1 : group_pages;
    kv = std::make_unique<KvStore>(*tiers, options);
  }
  ~KvRig() {
    kv.reset();
    for (int i = 0; i < 100 && budget.used() > 0; ++i) {
      tiers->poll();
      if (const Event next = tiers->pending(host_tier); !(next == Event())) next.wait().ignore();
    }
    CHECK(budget.used() == 0);
    tiers.reset();
  }

  // What token `mark` leaves in a layer: a byte that says which token, layer and kind it was.
  static std::byte mark_of(uint32_t mark, uint32_t layer, bool value) {
    return static_cast<std::byte>(mark * 4 + layer * 2 + value);
  }
  static std::byte* cell(std::byte* page, uint32_t slot, uint32_t head) {
    return page + (head * page_tokens + slot) * values;
  }

  // Appends tokens with the given marks as a step would: layer by layer, group by group.
  Status append(SequenceId id, const std::vector<uint32_t>& marks, bool keep = true) {
    const uint32_t before = kv->length(id).value();
    SLUICE_RETURN_IF_ERROR(kv->begin_step(id, static_cast<uint32_t>(marks.size())));
    Status status;
    for (uint32_t layer = 0; layer < layers && status.ok(); ++layer) {
      status = kv->make_room(id, layer);
      if (status.ok())
        status = visit(id, layer, [&](uint32_t page, std::byte* k, std::byte* v) {
          for (size_t i = 0; i < marks.size(); ++i) {
            const uint32_t at = before + static_cast<uint32_t>(i);
            if (at / page_tokens != page) continue;
            for (uint32_t h = 0; h < heads; ++h) {
              std::memset(cell(k, at % page_tokens, h), static_cast<int>(mark_of(marks[i], layer, false)), values);
              std::memset(cell(v, at % page_tokens, h), static_cast<int>(mark_of(marks[i], layer, true)), values);
            }
          }
        });
      kv->settle(id, layer, Event());
    }
    kv->end_step(id, keep && status.ok());
    return status;
  }

  template <class F>
  Status visit(SequenceId id, uint32_t layer, F each_page) {
    const uint32_t n = kv->n_pages(id);
    for (uint32_t first = 0; first < n; first += group) {
      const uint32_t count = std::min(group, n - first);
      std::vector<Event> ready;
      SLUICE_RETURN_IF_ERROR(kv->bring(id, layer, first, count, ready));
      Status status;
      for (const Event& event : ready)
        if (const Status s = event.wait(); status.ok()) status = s;
      const KvSpan span = kv->span(id, layer, first, count);
      for (uint32_t p = 0; p < count && status.ok(); ++p)
        each_page(first + p, span.k_pages[first + p - span.first_page], span.v_pages[first + p - span.first_page]);
      kv->release(id, layer, first, count, Event());
      SLUICE_RETURN_IF_ERROR(status);
    }
    return {};
  }

  // Reads everything back within a step of one token that is thrown away.
  bool holds(SequenceId id, const std::vector<uint32_t>& marks) {
    if (kv->length(id).value() != marks.size()) return false;
    if (!kv->begin_step(id, 1).ok()) return false;
    bool good = true;
    for (uint32_t layer = 0; layer < layers; ++layer) {
      good &= kv->make_room(id, layer).ok();
      good &= visit(id, layer, [&](uint32_t page, std::byte* k, std::byte* v) {
                for (uint32_t at = page * page_tokens; at < (page + 1) * page_tokens && at < marks.size(); ++at)
                  for (uint32_t h = 0; h < heads; ++h)
                    for (uint32_t b = 0; b < values; ++b) {
                      good &= cell(k, at % page_tokens, h)[b] == mark_of(marks[at], layer, false);
                      good &= cell(v, at % page_tokens, h)[b] == mark_of(marks[at], layer, true);
                    }
              }).ok();
      kv->settle(id, layer, Event());
    }
    kv->end_step(id, false);
    return good;
  }

  SequenceId create() { return kv->create().value(); }

  MemoryStore store;
  SimMemory memory;
  tier::Budget budget;
  std::unique_ptr<tier::TierManager> tiers;
  std::unique_ptr<KvStore> kv;
  uint32_t group;
};

std::vector<uint32_t> marks(uint32_t from, uint32_t n) {
  std::vector<uint32_t> out;
  for (uint32_t i = 0; i < n; ++i) out.push_back((from + i) % 60);
  return out;
}

std::vector<uint32_t> operator+(std::vector<uint32_t> a, const std::vector<uint32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST_CASE("kv: sequences are counted, unknown ones and full contexts are refused") {
  KvRig rig(0, 1000, 2);
  const SequenceId a = rig.create(), b = rig.create();
  CHECK(rig.kv->create().status().code() == Code::over_budget);
  CHECK(rig.kv->fork(a).status().code() == Code::over_budget);
  rig.kv->destroy(b);
  CHECK(rig.kv->length(b).status().code() == Code::invalid_argument);
  CHECK(rig.kv->truncate(b, 0).code() == Code::invalid_argument);
  CHECK(rig.kv->fork(b).status().code() == Code::invalid_argument);
  CHECK(rig.kv->length(SequenceId{77}).status().code() == Code::invalid_argument);
  CHECK(!rig.kv->begin_step(a, 65).ok());
  CHECK(rig.append(a, marks(0, 64)).ok());
  CHECK(!rig.kv->begin_step(a, 1).ok());
  CHECK(rig.kv->length(a).value() == 64);
  CHECK(!rig.kv->truncate(a, 65).ok());
}

TEST_CASE("kv: a step that is abandoned leaves what was there, page for page") {
  KvRig rig;
  const SequenceId a = rig.create();
  for (const uint32_t n : {1u, 3u, 4u, 5u, 9u}) {
    const uint32_t before = rig.kv->length(a).value();
    const uint64_t used = rig.budget.used();
    CHECK(rig.append(a, marks(20, 11), false).ok());
    CHECK(rig.kv->length(a).value() == before);
    while (rig.tiers->poll()) {
    }
    CHECK(rig.budget.used() == used);
    CHECK(rig.append(a, marks(before, n)).ok());
    CHECK(rig.holds(a, marks(0, before + n)));
  }
}

TEST_CASE("kv: a fork shares memory until either goes on, and then each has its own") {
  KvRig rig;
  const SequenceId a = rig.create();
  REQUIRE(rig.append(a, marks(0, 10)).ok());  // two full pages and a half
  const uint64_t used = rig.budget.used();
  const SequenceId b = rig.kv->fork(a).value(), c = rig.kv->fork(b).value();
  CHECK(rig.budget.used() == used);
  CHECK(rig.holds(b, marks(0, 10)));
  REQUIRE(rig.append(b, marks(30, 3)).ok());
  CHECK(rig.budget.used() > used);
  REQUIRE(rig.append(a, marks(40, 1)).ok());
  REQUIRE(rig.append(c, marks(50, 7)).ok());
  CHECK(rig.holds(a, marks(0, 10) + marks(40, 1)));
  CHECK(rig.holds(b, marks(0, 10) + marks(30, 3)));
  CHECK(rig.holds(c, marks(0, 10) + marks(50, 7)));
  rig.kv->destroy(a);
  CHECK(rig.holds(b, marks(0, 10) + marks(30, 3)));
  rig.kv->destroy(b);
  CHECK(rig.holds(c, marks(0, 10) + marks(50, 7)));
}

TEST_CASE("kv: truncated within a page, at its edge and to nothing; shared pages stay with the other") {
  for (uint32_t n = 0; n <= 13; ++n) {
    KvRig rig;
    const SequenceId a = rig.create();
    REQUIRE(rig.append(a, marks(0, 13)).ok());
    const SequenceId b = rig.kv->fork(a).value();
    REQUIRE(rig.kv->truncate(a, n).ok());
    CHECK(rig.holds(a, marks(0, n)));
    REQUIRE(rig.append(a, marks(30, 6)).ok());
    CHECK(rig.holds(a, marks(0, n) + marks(30, 6)));
    CHECK(rig.holds(b, marks(0, 13)));
  }
}

TEST_CASE("kv: an accepted path moves together, behind any base") {
  std::mt19937 random(5);
  for (int i = 0; i < 60; ++i) {
    KvRig rig;
    const SequenceId a = rig.create();
    const uint32_t base = random() % 11, n = 1 + random() % 14;
    if (base > 0) REQUIRE(rig.append(a, marks(0, base)).ok());
    const bool shared = random() % 2;
    REQUIRE(rig.append(a, marks(20, n)).ok());
    const SequenceId b = shared ? rig.kv->fork(a).value() : SequenceId{};
    std::vector<uint32_t> cells, kept = marks(0, base);
    for (uint32_t c = 0; c < n; ++c) {
      if (random() % 2) continue;
      cells.push_back(base + c);
      kept.push_back((20 + c) % 60);
    }
    const Status status = rig.kv->commit(a, base, cells);
    CHECK_MESSAGE(status.ok(), status.message());
    CHECK(rig.holds(a, kept));
    if (shared) CHECK(rig.holds(b, marks(0, base) + marks(20, n)));
  }
}

TEST_CASE("kv: pages that went to disk come back with the same bytes, in any groups") {
  for (const uint32_t group : {1u, 2u, 3u}) {
    for (const uint32_t kept : {0u, 3u, 8u}) {
      KvRig rig(group, kept, 2, 2 * layers * 2 + 8 * group + 24 + kept);
      const SequenceId a = rig.create();
      std::vector<uint32_t> all;
      for (uint32_t i = 0; i < 10; ++i) {
        const auto more = marks(7 * i, 6);
        const Status status = rig.append(a, more);
        REQUIRE_MESSAGE(status.ok(), status.message());
        all = all + more;
      }
      CHECK(rig.kv->any_spilled(a, 0));
      CHECK(rig.kv->any_spilled(a, layers - 1));
      CHECK(rig.holds(a, all));
      CHECK(rig.holds(a, all));  // and again
      const SequenceId b = rig.kv->fork(a).value();
      REQUIRE(rig.kv->truncate(a, 30).ok());
      REQUIRE(rig.append(a, marks(1, 5)).ok());
      all.resize(30);
      CHECK(rig.holds(a, all + marks(1, 5)));
      CHECK(rig.kv->length(b).value() == 60);
    }
  }
}

TEST_CASE("kv: whichever read fails, nothing is lost, and no page is used that was not read") {
  for (const bool commits : {false, true}) {
    for (uint64_t nth = 1; nth < 40; ++nth) {
      KvRig rig(1, 0, 2, 2 * layers * 2 + 40);
      const SequenceId a = rig.create();
      REQUIRE(rig.append(a, marks(0, 30)).ok());
      rig.store.fail_request(nth);
      const Status status = commits ? rig.kv->commit(a, 10, {12, 13, 29}) : rig.kv->truncate(a, 13);
      rig.store.set_fault({});
      std::vector<uint32_t> want = marks(0, status.ok() && commits ? 10 : commits ? 30 : 13);
      if (status.ok() && commits) want = want + marks(12, 2) + marks(29, 1);
      if (!status.ok()) CHECK(status.code() == Code::io_error);
      CHECK(rig.kv->length(a).value() == want.size());
      CHECK(rig.holds(a, want));
      REQUIRE(rig.append(a, marks(40, 3)).ok());
      CHECK(rig.holds(a, want + marks(40, 3)));
      if (status.ok()) break;
    }
  }
}

}  // namespace
}  // namespace sluice::testing
