#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "tests/cpu/kernel_inputs.h"

using namespace sluice;
using namespace sluice::cpu;
using namespace sluice::cpu::test;

namespace {

struct Routed {
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

Routed route(Isa isa, const std::vector<float>& logits, uint32_t tokens, uint32_t k, uint32_t shares = 1) {
  Routed r{std::vector<int32_t>(size_t{tokens} * k, -7), std::vector<float>(size_t{tokens} * k)};
  const auto experts = static_cast<uint32_t>(logits.size() / tokens);
  run_in_shares(isa, RouteCall{logits.data(), tokens, experts, k, r.ids.data(), r.weights.data()}, shares);
  return r;
}

}  // namespace

TEST_CASE("route: the k largest of a softmax, renormalised, ties to the lower index") {
  Random random(10);
  for (const Isa isa : supported_isas())
    for (int round = 0; round < 60; ++round) {
      const uint32_t experts = random.pick(1, 300), k = random.pick(1, std::min(experts, 24u)),
                     tokens = random.pick(1, 4);
      std::vector<float> logits = random.normals(size_t{tokens} * experts, 4);
      if (round % 3 == 0)
        for (float& x : logits) x = std::round(x);  // many ties
      const Routed got = route(isa, logits, tokens, k, random.pick(1, 5));
      for (uint32_t t = 0; t < tokens; ++t) {
        const float* row = &logits[size_t{t} * experts];
        std::vector<int32_t> order(experts);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return row[a] > row[b]; });
        double all = 0, chosen = 0;
        for (uint32_t e = 0; e < experts; ++e) all += std::exp(double{row[e]});
        for (uint32_t s = 0; s < k; ++s) chosen += std::exp(double{row[order[s]]}) / all;
        for (uint32_t s = 0; s < k; ++s) {
          REQUIRE(got.ids[t * k + s] == order[s]);
          REQUIRE(close(double{got.weights[t * k + s]}, std::exp(double{row[order[s]]}) / all / chosen, 2e-6));
        }
      }
    }
}

TEST_CASE("route: same bits on every ISA, in any batch and shares") {
  Random random(11);
  const uint32_t tokens = 6, experts = 70, k = 20;
  const std::vector<float> logits = random.normals(size_t{tokens} * experts, 3);
  const Routed want = route(Isa::scalar, logits, tokens, k);
  for (const Isa isa : supported_isas()) {
    for (uint32_t shares = 1; shares <= 5; ++shares) {
      const Routed got = route(isa, logits, tokens, k, shares);
      CHECK(got.ids == want.ids);
      CHECK(same_bits(got.weights, want.weights));
    }
    for (uint32_t t = 0; t < tokens; ++t) {
      const std::vector<float> row(&logits[t * experts], &logits[t * experts] + experts);
      const Routed alone = route(isa, row, 1, k);
      CHECK(std::equal(alone.ids.begin(), alone.ids.end(), &want.ids[t * k]));
      CHECK(std::memcmp(alone.weights.data(), &want.weights[t * k], k * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("route: NaN is chosen last, ids stay in range, extreme logits do not overflow") {
  for (const Isa isa : supported_isas()) {
    CHECK(route(isa, {NAN, 1, NAN, 5, 2}, 1, 3).ids == std::vector<int32_t>{3, 4, 1});
    CHECK(route(isa, {1, NAN, NAN}, 1, 3).ids == std::vector<int32_t>{0, 1, 2});
    const Routed extreme = route(isa, {-3e38f, 3e38f, 1, 3e38f}, 1, 3);
    CHECK(extreme.ids == std::vector<int32_t>{1, 3, 2});
    CHECK(extreme.weights == std::vector<float>{0.5f, 0.5f, 0});
  }
}
