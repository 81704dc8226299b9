#include "tests/cpu/best_logits_cases.h"

using namespace sluice;
using namespace sluice::cpu;
using namespace sluice::cpu::test;

namespace {

std::vector<TokenLogit> run_best(Isa isa, const BestCase& c, uint32_t shares = 1) {
  std::vector<TokenLogit> out(size_t{c.n_rows} * most_best, untouched);
  run_in_shares(isa, BestLogitsCall{c.logits.data(), c.rows.data(), c.recent.data(), c.n_rows, c.n_vocab, out.data()},
                shares);
  return out;
}

}  // namespace

TEST_CASE("best_logits: as sorted plainly, on every ISA, in any shares") {
  Random random(21);
  for (int round = 0; round < 150; ++round) {
    const uint32_t n_vocab = random.one_of({random.pick(1, 70), random.pick(1, 3000), 64u, 128u, 4097u});
    const BestCase c = random_best_case(random, random.pick(1, 6), n_vocab);
    for (const Isa isa : supported_isas()) check_best(c, run_best(isa, c, random.pick(1, 7)));
  }
}

TEST_CASE("best_logits: a vocabulary as models have it, and nothing asked of a row") {
  Random random(22);
  BestCase c = random_best_case(random, 3, 128256);
  c.rows[1].k = 0;
  for (const Isa isa : supported_isas()) check_best(c, run_best(isa, c, 2));
}

TEST_CASE("best_logits: penalties change the order") {
  const BestCase c{1, 4, {4, 3, -1, -2}, {{4, 2, 2.0f}}, {0, 2}};
  for (const Isa isa : supported_isas()) {
    const auto out = run_best(isa, c);
    const std::vector<int32_t> ids = {out[0].id, out[1].id, out[2].id, out[3].id};
    CHECK(ids == std::vector<int32_t>{1, 0, 2, 3});  // 3, 2, -2, -2
    CHECK(out[1].logit == 2);
    CHECK(out[2].logit == -2);
  }
}

TEST_CASE("best_logits: the first that is not finite comes first") {
  Random random(23);
  for (const Isa isa : supported_isas())
    for (const uint32_t n_vocab : {2u, 63u, 64u, 200u, 5000u})
      check_broken(random, n_vocab, [isa](const BestCase& c) { return run_best(isa, c, 2); });
}
