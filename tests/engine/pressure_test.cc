// When an engine gives memory back, and when it takes it again.
#include "engine/pressure.h"

#include <doctest/doctest.h>

#include "core/bytes.h"

namespace sluice::engine {
namespace {

TEST_CASE("pressure: the low mark leaves a machine of any size its first budget") {
  for (uint64_t free = 64 * MiB; free < 4096 * GiB; free *= 2) {
    const uint64_t most = affordable_ram(free), low = low_mark(most), left = free - most;
    CHECK(2 * low <= left + MiB);
    CHECK(low <= 2 * GiB);
    CHECK(low > 0);
    if (free >= 8 * GiB) CHECK(low >= 256 * MiB);
    CHECK(!wanted_budget({left, most, most, most}, low));
  }
}

TEST_CASE("pressure: what is short is given back, down to twice the mark free") {
  const uint64_t low = 100, most = 1000;
  CHECK(!wanted_budget({100, most, 900, most}, low));
  CHECK(wanted_budget({99, most, 900, most}, low) == 900 - 101);
  CHECK(wanted_budget({0, most, 900, most}, low) == 700);
  CHECK(wanted_budget({0, most, 200, most}, low) == 0);
  CHECK(wanted_budget({0, most, 150, most}, low) == 0);
}

TEST_CASE("pressure: it grows when there is plenty, never beyond the first budget") {
  const uint64_t low = 100, most = 1000;
  CHECK(!wanted_budget({399, 500, 500, most}, low));
  CHECK(wanted_budget({400, 500, 500, most}, low) == 700);
  CHECK(wanted_budget({5000, 500, 500, most}, low) == most);
  CHECK(!wanted_budget({5000, most, 500, most}, low));
  CHECK(!wanted_budget({400, 700, 550, most}, low));  // of what it has it does not use all
}

// The free memory of a machine where others come and go: what this engine gives back is free, and what it takes is not.
TEST_CASE("pressure: it settles, whatever the others take") {
  const uint64_t low = 100, most = 2000;
  for (uint64_t others = 0; others < 3000; others += 37) {
    MemoryState state{0, most, most, most};
    const uint64_t all = most + 500;
    int changes = 0;
    for (int i = 0; i < 20; ++i) {
      const uint64_t taken = state.used + others;
      state.free = all > taken ? all - taken : 0;
      const auto wanted = wanted_budget(state, low);
      if (!wanted || *wanted == state.budget) break;
      state.budget = state.used = *wanted;
      ++changes;
    }
    // Where they have taken more than there was, what is missing is seen only as far as nothing is free.
    CHECK(changes <= 2 + static_cast<int>(others > 500 ? (others - 500) / (2 * low) : 0));
    const uint64_t taken = state.used + others;
    if (taken <= all && state.used > 0) CHECK(all - taken >= low);
    CHECK(state.budget <= most);
  }
}

TEST_CASE("pressure: it looks once in an interval, grows after a calm, and complains once") {
  Pressure pressure({[] { return uint64_t{0}; }, 100, 10, 25, 1000}, 1000);
  CHECK(pressure.due(5));
  CHECK(!pressure.due(14));
  CHECK(pressure.due(15));

  const MemoryState plenty{5000, 500, 500}, middling{200, 500, 500};
  CHECK(!pressure.decide(plenty, 20));
  CHECK(!pressure.decide(plenty, 44));
  CHECK(!pressure.decide(middling, 45));  // it begins anew
  CHECK(!pressure.decide(plenty, 46));
  CHECK(!pressure.decide(plenty, 70));
  CHECK(pressure.decide(plenty, 71) == 1000);
  CHECK(pressure.decide({0, 500, 500}, 72) == 300);  // at once

  CHECK(pressure.refused(80));
  CHECK(!pressure.due(1079));
  CHECK(pressure.due(1080));
  CHECK(!pressure.refused(1080));
  pressure.begin(0);
  CHECK(!pressure.due(100'000));
}

}  // namespace
}  // namespace sluice::engine
