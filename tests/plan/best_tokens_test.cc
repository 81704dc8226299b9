// Steps of which the best tokens are wanted instead of the logits: they are those of the logits, at any site.
#include "tests/cpu/best_logits_cases.h"
#include "tests/plan/rig.h"

namespace sluice::testing {
namespace {

using cpu::test::BestCase;
using Placed = std::function<bool(size_t op, bool prompt)>;

TinyModel model() {
  TinyOptions o;
  o.dtype = DType::q8_0;
  return make_tiny(o);
}

PlanRigOptions with(const Placed& placed) {
  PlanRigOptions o;
  o.compute = Compute::fast;
  o.placed = placed;
  return o;
}

BestTokens asked(const BestCase& c, uint32_t row) {
  const BestLogitsRow& r = c.rows[row];
  return {r.k, r.penalty, {&c.recent[size_t{row} * most_recent], r.n_recent}};
}

// Three rows of one step, all of them wanted whole.
Batch three_tokens(PlanRig& rig, SequenceId id) {
  Batch batch;
  rig.append(batch, id, random_tokens(10, 5), 0, 3);
  return batch;
}

BestCase case_of(const std::vector<Floats>& rows) {
  BestCase c{3, 97, {}, {{5, 2, 4.0f}, {0, 0, 1.0f}, {most_best, most_recent, 0.5f}}, {}};
  for (const Floats& row : rows) c.logits.insert(c.logits.end(), row.begin(), row.end());
  for (size_t i = 0; i < 3 * most_recent; ++i) c.recent.push_back(static_cast<int32_t>(i % 13));
  return c;
}

void check_row(const TokenLogit* got, const BestCase& c, uint32_t row) {
  const auto want = cpu::test::best_of(c, row);
  for (size_t i = 0; i < want.size(); ++i) {
    REQUIRE(got[i].id == want[i].id);
    REQUIRE(got[i].logit == want[i].logit);
  }
}

}  // namespace

TEST_CASE("best tokens: those of the logits, beside rows that are wanted whole, wherever the head is") {
  const TinyModel tiny = model();
  for (const Placed& placed :
       {Placed(), Placed([](size_t, bool) { return true; }), Placed([](size_t op, bool) { return op % 2 == 0; }),
        Placed([](size_t op, bool) { return op % 2 == 1; })}) {
    PlanRig rig(tiny, with(placed));
    const SequenceId id = rig.sequence();
    Batch batch = three_tokens(rig, id);
    const auto rows = rig.step(batch).value();
    const BestCase c = case_of(rows);
    REQUIRE(rig.kv->truncate(id, 0).ok());
    for (const uint32_t row : {0u, 2u}) batch.tokens[row].best = asked(c, row);
    batch.tokens[1].best = {0, 0, std::span(c.recent)};  // more than a row has room for, of which nothing is asked
    const auto result = rig.executor->step(batch);
    REQUIRE_MESSAGE(result.ok(), result.status().message());
    REQUIRE(result->n_rows == 3);
    check_row(result->best, c, 0);
    check_row(result->best + 2 * most_best, c, 2);
    CHECK(Floats(result->logits + 97, result->logits + 2 * 97) == rows[1]);
  }
}

TEST_CASE("best tokens: the logits stay where they were made") {
  const TinyModel tiny = model();
  PlanRig rig(tiny, with([](size_t, bool) { return true; }));
  const SequenceId id = rig.sequence();
  Batch batch = three_tokens(rig, id);
  const auto whole = rig.executor->step(batch);
  REQUIRE(whole.ok());
  auto* logits = const_cast<float*>(whole->logits);
  std::fill(logits, logits + 3 * 97, 12345.0f);
  for (BatchToken& token : batch.tokens) token.best.k = 1;
  REQUIRE(rig.kv->truncate(id, 0).ok());
  REQUIRE(rig.executor->step(batch).ok());
  CHECK(std::count(logits, logits + 3 * 97, 12345.0f) == 3 * 97);
  for (BatchToken& token : batch.tokens) token.best.k = 0;
  REQUIRE(rig.kv->truncate(id, 0).ok());
  REQUIRE(rig.executor->step(batch).ok());
  CHECK(std::count(logits, logits + 3 * 97, 12345.0f) == 0);
}

TEST_CASE("best tokens: what cannot be asked for is refused and changes nothing") {
  const TinyModel tiny = model();
  PlanRig rig(tiny, with({}));
  const SequenceId id = rig.sequence();
  const std::vector<int32_t> many(most_recent + 1, 3), strange = {3, 97}, negative = {-1};
  const auto refused = [&](const BestTokens& best) {
    Batch batch = three_tokens(rig, id);
    batch.tokens[1].best = best;
    CHECK(rig.executor->step(batch).status().code() == Code::invalid_argument);
    CHECK(rig.length(id) == 0);
  };
  refused({most_best + 1, 1, {}});
  refused({1, 1, many});
  refused({1, 1, strange});
  refused({1, 1, negative});
  refused({1, 0, {}});
  refused({1, NAN, {}});
  refused({1, INFINITY, {}});
  Batch rows;
  rig.append(rows, id, random_tokens(5, 5), 0, 5);  // one more than there are sequences
  rows.tokens[0].best.k = 1;
  CHECK(rig.executor->step(rows).status().code() == Code::invalid_argument);
  rows.tokens.pop_back();
  CHECK(rig.executor->step(rows).ok());
}

}  // namespace sluice::testing
