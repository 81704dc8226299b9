// Attention over some of a query's pages put together with that over the others.
#include "tests/gpu/kernels/device_data.h"
#include "tests/support/attention_states.h"

using namespace sluice;
using namespace sluice::gpu;
using namespace sluice::gpu::test;
using namespace sluice::testing;
using sluice::cpu::test::close;
using sluice::cpu::test::Random;

namespace {

std::vector<float> merged(const AttentionStates& s) {
  const DeviceArray<float> a(s.a), b(s.b), out(size_t{s.n_rows} * s.head_dim);
  run_call(MergeStatesCall{a.data(), b.data(), s.n_rows, s.head_dim, out.data()});
  return out.get();
}

}  // namespace

TEST_CASE("gpu merge_states: within 1e-6 of double precision, whatever the sizes") {
  Random random(31);
  for (int round = 0; round < 20; ++round) {
    const AttentionStates s = random_states(random, random.pick(1, 40), random.pick(1, 140));
    const std::vector<float> got = merged(s);
    const std::vector<double> want = merged_in_double(s);
    for (size_t i = 0; i < want.size(); ++i) REQUIRE(close(double{got[i]}, want[i], 1e-6, 1e-6));
  }
}

TEST_CASE("gpu merge_states: where one side saw nothing, the other one's bits; zeros where neither saw anything") {
  Random random(32);
  const AttentionStates s = one_sided_states(random);
  CHECK(merged(s) == merged_one_sided(s));
}
