#include <algorithm>
#include <numeric>

#include "tests/cpu/kernel_inputs.h"
#include "tests/gpu/kernels/device_data.h"

using namespace sluice;
using namespace sluice::gpu;
using namespace sluice::gpu::test;
using sluice::cpu::test::close;
using sluice::cpu::test::Random;

namespace {

struct Routed {
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

Routed route(const std::vector<float>& logits, uint32_t tokens, uint32_t k) {
  const DeviceArray<float> device(logits), weights(size_t{tokens} * k);
  const DeviceArray<int32_t> ids(size_t{tokens} * k);
  const auto experts = static_cast<uint32_t>(logits.size() / tokens);
  run_call(RouteCall{device.data(), tokens, experts, k, ids.data(), weights.data()});
  return {ids.get(), weights.get()};
}

}  // namespace

TEST_CASE("gpu route: the k largest of a softmax, renormalised, ties to the lower index") {
  Random random(10);
  for (int round = 0; round < 30; ++round) {
    const uint32_t experts = random.pick(1, 300), k = random.pick(1, std::min(experts, 40u)),
                   tokens = random.pick(1, 4);
    std::vector<float> logits = random.normals(size_t{tokens} * experts, 4);
    if (round % 3 == 0)
      for (float& x : logits) x = std::round(x);  // many ties
    const Routed got = route(logits, tokens, k);
    for (uint32_t t = 0; t < tokens; ++t) {
      const float* row = &logits[size_t{t} * experts];
      std::vector<int32_t> order(experts);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return row[a] > row[b]; });
      double chosen = 0;
      for (uint32_t s = 0; s < k; ++s) chosen += std::exp(double{row[order[s]]} - double{row[order[0]]});
      for (uint32_t s = 0; s < k; ++s) {
        REQUIRE(got.ids[t * k + s] == order[s]);
        const double want = std::exp(double{row[order[s]]} - double{row[order[0]]}) / chosen;
        REQUIRE(close(double{got.weights[t * k + s]}, want, 2e-6));
      }
    }
  }
}

TEST_CASE("gpu route: the same bits alone and in a batch") {
  Random random(11);
  const uint32_t tokens = 6, experts = 70, k = 20;
  const std::vector<float> logits = random.normals(size_t{tokens} * experts, 3);
  const Routed all = route(logits, tokens, k);
  for (uint32_t t = 0; t < tokens; ++t) {
    const Routed alone = route({&logits[t * experts], &logits[t * experts] + experts}, 1, k);
    CHECK(std::equal(alone.ids.begin(), alone.ids.end(), &all.ids[t * k]));
    CHECK(std::memcmp(alone.weights.data(), &all.weights[t * k], k * sizeof(float)) == 0);
  }
}

TEST_CASE("gpu route: NaN is chosen last, ids stay in range, extreme logits do not overflow") {
  CHECK(route({NAN, 1, NAN, 5, 2}, 1, 3).ids == std::vector<int32_t>{3, 4, 1});
  CHECK(route({1, NAN, NAN}, 1, 3).ids == std::vector<int32_t>{0, 1, 2});
  const Routed extreme = route({-3e38f, 3e38f, 1, 3e38f}, 1, 3);
  CHECK(extreme.ids == std::vector<int32_t>{1, 3, 2});
  CHECK(extreme.weights == std::vector<float>{0.5f, 0.5f, 0});
}
