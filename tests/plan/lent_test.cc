// Weights that give way to the workspace of large steps, and come back.
#include "offload/plan/cost_model.h"
#include "offload/plan/planner_sites.h"
#include "tests/plan/rig.h"
#include "tests/support/gpu_machine.h"

namespace sluice::testing {
namespace {

constexpr TierId lent_tier{4};

TinyModel model_of() {
  TinyOptions o;
  o.n_layers = 3;
  o.dtype = DType::q8_0;
  return make_tiny(o);
}

PlanRigOptions lending(uint32_t small_step, double device_resident = 1, double resident = 1) {
  PlanRigOptions o;
  o.compute = Compute::fast;
  o.placed = [](size_t, bool) { return true; };
  o.small_step = small_step;
  o.device_resident = device_resident;
  o.resident = resident;
  return o;
}

// Steps of all sizes, prompts and others.
Result<std::vector<Floats>> talk(PlanRig& rig, SequenceId id) {
  const auto tokens = random_tokens(60, 5);
  std::vector<Floats> rows;
  size_t done = 0;
  for (const size_t n : {20u, 1u, 1u, 3u, 16u, 9u, 2u, 8u}) {
    Batch batch;
    batch.prompt = n > 2;
    rig.append(batch, id, tokens, done, n);
    SLUICE_ASSIGN_OR_RETURN(auto some, rig.step(batch));
    rows.insert(rows.end(), some.begin(), some.end());
    done += n;
  }
  return rows;
}

std::vector<Floats> talk_once(const TinyModel& model, const PlanRigOptions& o) {
  PlanRig rig(model, o);
  auto rows = talk(rig, rig.sequence());
  REQUIRE_MESSAGE(rows.ok(), rows.status().message());
  return *rows;
}

void feed_one_step(PlanRig& rig, SequenceId id, size_t n) {
  Batch batch;
  rig.append(batch, id, random_tokens(n, 3), 0, n);
  CHECK(rig.step(batch).ok());
}

}  // namespace

TEST_CASE("lent: bits are those of weights that stay, from RAM and from disk, wherever ops are") {
  const TinyModel model = model_of();
  const auto want = talk_once(model, lending(0));
  for (const uint32_t small_step : {1u, 4u, 16u})
    for (const double there : {1.0, 0.5})
      for (const double resident : {1.0, 0.3}) {
        INFO(small_step, " ", there, " ", resident);
        CHECK(same_bits(talk_once(model, lending(small_step, there, resident)), want));
      }
  PlanRigOptions mixed = lending(4, 0.7, 0.5);
  mixed.placed = [](size_t op, bool prompt) { return op % 3 != 0 || prompt; };
  CHECK(same_bits(talk_once(model, mixed), want));
}

TEST_CASE("lent: weights leave before a large step and are brought back once, by the next small one") {
  const TinyModel model = model_of();
  PlanRig rig(model, lending(4));
  const plan::Holding& h = rig.plan.movement.sites[1];
  uint64_t lent = 0;
  for (size_t i = 0; i < h.resident.size(); ++i)
    lent += h.lends(i) ? rig.plan.movement.weights.blocks[i].slot_bytes : 0;
  REQUIRE(lent > 0);
  const auto held = [&] { return rig.tiers->stats(lent_tier).used; };
  const auto brought = [&] {
    rig.settle();
    return rig.tiers->stats(lent_tier).bytes_in;
  };
  const SequenceId id = rig.sequence();
  CHECK(held() == 0);  // not before they are wanted
  feed_one_step(rig, id, 20);
  CHECK(held() == 0);
  feed_one_step(rig, id, 1);
  CHECK(held() == lent);
  const uint64_t once = brought();
  CHECK(once > 0);
  feed_one_step(rig, id, 4);
  feed_one_step(rig, id, 2);
  CHECK(brought() == once);
  feed_one_step(rig, id, 5);
  CHECK(held() == 0);
  feed_one_step(rig, id, 3);
  CHECK(held() == lent);
  CHECK(brought() == 2 * once);
}

// What a pass brings back it need not use: a prompt may have its ops elsewhere, and has logits at its end alone.
TEST_CASE("lent: what comes back is waited for by the pass that uses it, be it not the one that fetched it") {
  const TinyModel model = model_of();
  PlanRigOptions o = lending(4);
  o.placed = [](size_t, bool prompt) { return !prompt; };
  const auto run = [&](std::chrono::nanoseconds latency) {
    o.copy_latency = latency;
    PlanRig rig(model, o);
    const SequenceId id = rig.sequence();
    const auto tokens = random_tokens(8, 7);
    std::vector<Floats> rows;
    for (size_t done = 0; done < tokens.size(); done += 2) {
      Batch batch;
      batch.prompt = done == 0;
      rig.append(batch, id, tokens, done, 2);
      auto some = rig.step(batch);
      REQUIRE_MESSAGE(some.ok(), some.status().message());
      rows.insert(rows.end(), some->begin(), some->end());
    }
    return rows;
  };
  const auto want = run({});
  for (int i = 0; i < 3; ++i) CHECK(same_bits(run(std::chrono::milliseconds(2)), want));
}

TEST_CASE("lent: a read that fails on the way back fails the step, and the next one has the bits") {
  const TinyModel model = model_of();
  const auto want = talk_once(model, lending(0));
  int failed = 0;
  for (int fault = 0; fault < 12; ++fault) {
    PlanRigOptions o = lending(4, 1, 0);  // from disk, all of it
    PlanRig rig(model, o);
    const SequenceId id = rig.sequence();
    feed_one_step(rig, id, 20);
    std::atomic<int> left{fault};
    rig.store.set_fault([&left](uint64_t, const IoRequest&) { return left.fetch_sub(1) == 0; });
    Batch batch;
    rig.append(batch, id, random_tokens(1, 3), 0, 1);
    failed += !rig.step(batch).ok();
    rig.store.set_fault({});
    REQUIRE(rig.kv->truncate(id, 0).ok());
    const auto rows = talk(rig, id);
    REQUIRE_MESSAGE(rows.ok(), rows.status().message());
    CHECK(same_bits(*rows, want));
  }
  CHECK(failed > 6);
}

TEST_CASE("lent: the planner lends what decoding gains by, and steps need not be smaller for it") {
  TinyOptions tiny;
  tiny.n_layers = 6;
  tiny.hidden = 256;
  tiny.ffn = 1024;
  tiny.head_dim = 64;
  const TinyModel model = make_tiny(tiny);
  const Graph& g = model.graph;
  const Machine machine = gpu_machine(20, 400, 10, 5);
  plan::PlanRequest r;
  r.accelerators = {{"gpu 0", 20 * MiB, 64 * KiB, {}, true}};
  r.ram_budget = GiB;
  r.context = 1024;
  r.page_tokens = 16;
  const auto made = plan::make_plan(g, machine, r);
  REQUIRE_MESSAGE(made.ok(), made.status().message());
  const auto& lent = made->movement.sites[1].lent;
  REQUIRE(std::count(lent.begin(), lent.end(), true) > 0);
  plan::Plan without = *made;  // nobody lends
  without.movement.sites[1].lent.clear();
  CHECK(plan::step_cost(g, machine, *made, 1, 16).seconds() < plan::step_cost(g, machine, without, 1, 16).seconds());
  const uint32_t large = made->workspace.tokens;
  CHECK(large > made->movement.small_step);
  CHECK(plan::step_cost(g, machine, *made, large, 0).seconds() ==
        doctest::Approx(plan::step_cost(g, machine, without, large, 0).seconds()));
  r.prompt = r.context;  // who knows that prompts are long gets steps for them
  const auto known = plan::make_plan(g, machine, r);
  REQUIRE(known.ok());
  CHECK(known->workspace.tokens >= made->workspace.tokens);
  CHECK(plan::prompt_seconds(g, machine, *known, r.prompt) <= plan::prompt_seconds(g, machine, *made, r.prompt));
  r.prompt = 0;
  r.accelerators.front().budget = 256 * MiB;  // where all fits nothing is lent
  const auto roomy = plan::make_plan(g, machine, r);
  REQUIRE(roomy.ok());
  const auto& none = roomy->movement.sites[1].lent;
  CHECK(std::count(none.begin(), none.end(), true) == 0);
}

}  // namespace sluice::testing
