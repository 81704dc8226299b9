// Rows of logits of which the best tokens are wanted, and what these are: sorted plainly.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>

#include "tests/cpu/kernel_inputs.h"

namespace sluice::cpu::test {

struct BestCase {
  uint32_t n_rows, n_vocab;
  std::vector<float> logits;
  std::vector<BestLogitsRow> rows;
  std::vector<int32_t> recent;  // n_rows x most_recent

  float logit(uint32_t row, size_t id) const { return logits[size_t{row} * n_vocab + id]; }
  void breaks(uint32_t row, size_t id, float value) { logits[size_t{row} * n_vocab + id] = value; }
};

// Of each kind some: spread out, many equal, all equal, zeros of both signs, in order, as large and as small as can be.
inline float some_logit(Random& random, uint32_t kind, uint32_t id, uint32_t n) {
  constexpr float most = std::numeric_limits<float>::max(), least = std::numeric_limits<float>::denorm_min();
  switch (kind) {
    case 0: return random.normal(4);
    case 1: return std::round(random.normal(2));
    case 2: return -1.5f;
    case 3: return random.one_of({0.0f, -0.0f});
    case 4: return static_cast<float>(id) - static_cast<float>(n) / 2;
    case 5: return static_cast<float>(n) / 2 - static_cast<float>(id);
    case 6: return random.one_of({most, -most, 3.1e38f, least, -least, 1.0f, -0.0f});
    default: return -std::abs(random.normal(3)) - 1;
  }
}
inline constexpr uint32_t kinds_of_logits = 8;

inline BestCase random_best_case(Random& random, uint32_t n_rows, uint32_t n_vocab) {
  BestCase c{n_rows, n_vocab, {}, {}, std::vector<int32_t>(size_t{n_rows} * most_recent, -1)};
  for (uint32_t r = 0; r < n_rows; ++r) {
    const uint32_t kind = random.pick(0, kinds_of_logits - 1);
    for (uint32_t id = 0; id < n_vocab; ++id) c.logits.push_back(some_logit(random, kind, id, n_vocab));
    const uint32_t k = random.one_of({1u, 2u, 3u, 40u, 64u, 100u, 255u, most_best, random.pick(1, most_best)});
    const uint32_t n_recent = random.one_of({0u, 1u, 31u, 64u, random.pick(0, 300), most_recent});
    c.rows.push_back({k, n_recent, random.one_of({1.0f, 1.1f, 2.0f, 0.5f, 100.0f, 0.01f})});
    const uint32_t among = random.one_of({n_vocab, std::min(n_vocab, 10u)});  // few: they repeat
    for (uint32_t i = 0; i < n_recent; ++i)
      c.recent[size_t{r} * most_recent + i] = static_cast<int32_t>(random.pick(0, among - 1));
  }
  return c;
}

// Logits of a row as they count.
inline std::vector<float> counting_logits(const BestCase& c, uint32_t row) {
  const auto begin = c.logits.begin() + static_cast<long>(size_t{row} * c.n_vocab);
  std::vector<float> logits(begin, begin + c.n_vocab);
  const int32_t* recent = c.recent.data() + size_t{row} * most_recent;
  for (const int32_t id : std::set<int32_t>(recent, recent + c.rows[row].n_recent)) {
    float& x = logits[static_cast<size_t>(id)];
    x = x > 0 ? x / c.rows[row].penalty : x * c.rows[row].penalty;
    x = std::min(std::max(x, -3e38f), 3e38f);
  }
  return logits;
}

inline std::vector<TokenLogit> best_of(const BestCase& c, uint32_t row) {
  const std::vector<float> logits = counting_logits(c, row);
  std::vector<int32_t> ids(c.n_vocab);
  std::iota(ids.begin(), ids.end(), 0);
  const auto logit = [&](int32_t id) { return logits[static_cast<size_t>(id)]; };
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return logit(a) > logit(b); });
  std::vector<TokenLogit> best;
  for (uint32_t i = 0; i < c.rows[row].k; ++i)
    best.push_back(i < c.n_vocab ? TokenLogit{logit(ids[i]), ids[i]} : TokenLogit{-INFINITY, -1});
  return best;
}

inline constexpr TokenLogit untouched{-12345.0f, -77};

// `out`, untouched before, is what a call made of c.
inline void check_best(const BestCase& c, const std::vector<TokenLogit>& out) {
  REQUIRE(out.size() == size_t{c.n_rows} * most_best);
  for (uint32_t r = 0; r < c.n_rows; ++r) {
    CAPTURE(r);
    CAPTURE(c.n_vocab);
    std::vector<TokenLogit> want = best_of(c, r);
    want.resize(most_best, untouched);
    for (uint32_t i = 0; i < most_best; ++i) {
      CAPTURE(i);
      REQUIRE(out[r * most_best + i].id == want[i].id);
      REQUIRE(out[r * most_best + i].logit == want[i].logit);
    }
  }
}

// run() gives the output of a case: with a row that has logits which are not finite, the first of them at the begin,
// at the end and between, recent and penalized.
inline void check_broken(Random& random, uint32_t n_vocab, auto run) {
  for (const uint32_t at : {0u, 1u, n_vocab / 2, n_vocab - 2, n_vocab - 1})
    for (const float value : {NAN, INFINITY, -INFINITY}) {
      BestCase c = random_best_case(random, 3, n_vocab);
      c.breaks(1, random.pick(at, n_vocab - 1), -INFINITY);  // another one behind it, or this one
      c.breaks(1, at, value);
      c.rows[1].n_recent = 3;
      c.recent[most_recent + 2] = static_cast<int32_t>(at);
      for (int i = 0; i < 2; ++i) c.recent[most_recent + static_cast<size_t>(i)] = static_cast<int32_t>(n_vocab - 1);
      const std::vector<TokenLogit> out = run(c);
      const TokenLogit& first = out[most_best];
      CAPTURE(at);
      CHECK(first.id == static_cast<int32_t>(at));
      CHECK((std::isnan(value) ? std::isnan(first.logit) : first.logit == value));
      CHECK(out[0].id == best_of(c, 0)[0].id);  // other rows are as they were
      CHECK(out[size_t{2} * most_best].id == best_of(c, 2)[0].id);
    }
}

}  // namespace sluice::cpu::test
