// Attention over some of a query's pages put together with that over the others.
#include <doctest/doctest.h>

#include <algorithm>

#include "tests/cpu/kernel_inputs.h"
#include "tests/support/attention_states.h"

using namespace sluice;
using namespace sluice::cpu;
using namespace sluice::cpu::test;
using namespace sluice::testing;

namespace {

std::vector<float> merged(Isa isa, const AttentionStates& s, uint32_t shares) {
  std::vector<float> out(size_t{s.n_rows} * s.head_dim, NAN);
  run_in_shares(isa, MergeStatesCall{s.a.data(), s.b.data(), s.n_rows, s.head_dim, out.data()}, shares);
  return out;
}

}  // namespace

TEST_CASE("merge_states: within 1e-6 of double precision, whatever the sizes, in any shares") {
  Random random(31);
  for (const Isa isa : supported_isas())
    for (int round = 0; round < 20; ++round) {
      const AttentionStates s = random_states(random, random.pick(1, 40), random.pick(1, 140));
      const std::vector<double> want = merged_in_double(s);
      const std::vector<float> once = merged(isa, s, 1);
      for (size_t i = 0; i < want.size(); ++i) REQUIRE(close(double{once[i]}, want[i], 1e-6, 1e-6));
      for (const uint32_t shares : {2u, 5u}) CHECK(same_bits(merged(isa, s, shares), once));
    }
}

TEST_CASE("merge_states: where one side saw nothing, the other one's bits; zeros where neither saw anything") {
  Random random(32);
  for (const Isa isa : supported_isas()) {
    const AttentionStates s = one_sided_states(random);
    CHECK(merged(isa, s, 1) == merged_one_sided(s));
  }
}
