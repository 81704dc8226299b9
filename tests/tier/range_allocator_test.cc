#include "offload/tier/range_allocator.h"

#include <doctest/doctest.h>

#include <map>
#include <random>
#include <vector>

namespace sluice::tier {
namespace {

// The space as one flag for each unit.
class Model {
 public:
  explicit Model(uint64_t units) : used_(units, false) {}

  // Length of the shortest free run of at least `units`, 0 if there is none.
  uint64_t best(uint64_t units) const {
    uint64_t best = 0, run = 0;
    for (size_t i = 0; i <= used_.size(); ++i) {
      if (i < used_.size() && !used_[i]) {
        ++run;
      } else {
        if (run >= units && (best == 0 || run < best)) best = run;
        run = 0;
      }
    }
    return best;
  }
  uint64_t longest() const {
    uint64_t longest = 0, run = 0;
    for (const bool u : used_) longest = std::max(longest, run = u ? 0 : run + 1);
    return longest;
  }
  // Length of the free run that begins at `at`, or 0 if none begins there.
  uint64_t run_at(uint64_t at) const {
    if (used_[at] || (at > 0 && !used_[at - 1])) return 0;
    uint64_t n = 0;
    while (at + n < used_.size() && !used_[at + n]) ++n;
    return n;
  }
  bool mark(uint64_t at, uint64_t n, bool value) {
    for (uint64_t i = at; i < at + n; ++i) {
      if (i >= used_.size() || used_[i] == value) return false;
      used_[i] = value;
    }
    return true;
  }

 private:
  std::vector<bool> used_;
};

void against_model(uint64_t units, uint64_t unit, uint64_t largest, uint32_t seed) {
  RangeAllocator ranges(units * unit + unit / 2, unit, 1u << 16);
  REQUIRE(ranges.capacity() == units * unit);
  Model model(units);
  std::mt19937 random(seed);
  std::vector<uint32_t> out;
  uint64_t used = 0;
  for (int step = 0; step < 4000; ++step) {
    const bool grow = (step / 500) % 2 == 0;
    if (out.empty() || random() % 100 < (grow ? 65u : 35u)) {
      const uint64_t bytes = 1 + random() % (largest * unit);
      const uint64_t n = (bytes + unit - 1) / unit;
      const uint64_t expected = model.best(n);
      const uint32_t range = ranges.allocate(bytes);
      REQUIRE((range != RangeAllocator::none) == (expected > 0));
      if (range == RangeAllocator::none) continue;
      REQUIRE(ranges.offset(range) % unit == 0);
      REQUIRE(ranges.bytes(range) == n * unit);
      REQUIRE(model.run_at(ranges.offset(range) / unit) == expected);  // best fit, cut at its beginning
      REQUIRE(model.mark(ranges.offset(range) / unit, n, true));
      out.push_back(range);
      used += n * unit;
    } else {
      const size_t i = random() % out.size();
      REQUIRE(model.mark(ranges.offset(out[i]) / unit, ranges.bytes(out[i]) / unit, false));
      used -= ranges.bytes(out[i]);
      ranges.free(out[i]);
      out[i] = out.back();
      out.pop_back();
    }
    REQUIRE(ranges.used() == used);
    REQUIRE(ranges.ranges() == out.size());
    REQUIRE(ranges.largest_free() == model.longest() * unit);
  }
  for (const uint32_t range : out) ranges.free(range);
  CHECK(ranges.used() == 0);
  CHECK(ranges.largest_free() == ranges.capacity());
}

TEST_CASE("range allocator: the same as a naive model") {
  SUBCASE("small ranges") { against_model(200, 4096, 8, 1); }
  SUBCASE("large ranges") { against_model(300, 4096, 90, 2); }
  SUBCASE("one size") { against_model(64, 4096, 1, 3); }
  SUBCASE("bytes") { against_model(500, 1, 40, 4); }
}

TEST_CASE("range allocator: the bound of ranges holds, and freed ones count again") {
  RangeAllocator ranges(1 << 20, 4096, 3);
  const uint32_t a = ranges.allocate(1), b = ranges.allocate(1), c = ranges.allocate(1);
  CHECK(c != RangeAllocator::none);
  CHECK(ranges.allocate(1) == RangeAllocator::none);
  ranges.free(b);
  const uint32_t again = ranges.allocate(4096);
  REQUIRE(again != RangeAllocator::none);
  CHECK(again < ranges.index_bound());
  ranges.free(a);
  ranges.free(c);
  ranges.free(again);
  CHECK(ranges.largest_free() == 1 << 20);
}

TEST_CASE("range allocator: nothing fits nothing") {
  RangeAllocator none(4095, 4096, 8);
  CHECK(none.capacity() == 0);
  CHECK(none.allocate(1) == RangeAllocator::none);
  CHECK(none.largest_free() == 0);
  RangeAllocator one(4096, 4096, 8);
  CHECK(one.allocate(0) == RangeAllocator::none);
  CHECK(one.allocate(4097) == RangeAllocator::none);
  CHECK(one.allocate(UINT64_MAX) == RangeAllocator::none);
  CHECK(one.allocate(4096) != RangeAllocator::none);
}

}  // namespace
}  // namespace sluice::tier
