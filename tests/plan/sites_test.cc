// Several sites: an accelerator that computes exactly as the CPU does, so that wherever an op is placed, and
// whatever is resident, streamed or handed over, the bits are those of the CPU alone.
#include <random>

#include "tests/plan/rig.h"

namespace sluice::testing {
namespace {

using Placed = std::function<bool(size_t op, bool prompt)>;

TinyModel model_of(uint32_t layers = 3) {
  TinyOptions o;
  o.n_layers = layers;
  o.dtype = DType::q8_0;
  o.head_norms = true;
  return make_tiny(o);
}

PlanRigOptions with(const Placed& placed, double resident = 0.4, double device_resident = 0.4) {
  PlanRigOptions o;
  o.compute = Compute::fast;
  o.resident = resident;
  o.placed = placed;
  o.device_resident = device_resident;
  return o;
}

// A prompt in chunks, then tokens one by one: both kinds of steps.
std::vector<Floats> run(PlanRig& rig, const std::vector<int32_t>& tokens, SequenceId id, size_t chunk) {
  std::vector<Floats> rows;
  for (size_t done = 0; done < tokens.size();) {
    const bool prompt = done < 24;
    const size_t n = prompt ? std::min(chunk, 24 - done) : 1;
    Batch batch;
    batch.prompt = prompt;
    rig.append(batch, id, tokens, done, n);
    auto some = rig.step(batch);
    REQUIRE_MESSAGE(some.ok(), some.status().message());
    rows.insert(rows.end(), some->begin(), some->end());
    done += n;
  }
  return rows;
}

std::vector<Floats> run_once(const TinyModel& model, const PlanRigOptions& o, size_t chunk = 9) {
  PlanRig rig(model, o);
  return run(rig, random_tokens(30, 5), rig.sequence(), chunk);
}

}  // namespace

TEST_CASE("sites: any placement gives the CPU's bits") {
  const TinyModel model = model_of();
  const auto want = run_once(model, with({}));
  const auto is = [&](size_t i, auto kind) { return std::holds_alternative<decltype(kind)>(model.graph.ops[i]); };
  std::vector<std::pair<const char*, Placed>> placements = {
      {"all there", [](size_t, bool) { return true; }},
      {"all but the embedding", [](size_t i, bool) { return i > 0; }},
      {"the FFNs here", [&](size_t i, bool) { return !is(i, FfnOp{}); }},
      {"the FFNs there", [&](size_t i, bool) { return is(i, FfnOp{}); }},
      {"only attention there", [&](size_t i, bool) { return is(i, AttentionOp{}); }},
      {"only attention here", [&](size_t i, bool) { return !is(i, AttentionOp{}); }},
      {"prompts there", [](size_t, bool prompt) { return prompt; }},
      {"decoding there", [](size_t, bool prompt) { return !prompt; }},
  };
  for (const auto& [name, placed] : placements)
    for (const double resident : {1.0, 0.4, 0.0})
      for (const double there : {1.0, 0.4, 0.0}) {
        INFO(name, " ", resident, " ", there);
        CHECK(same_bits(run_once(model, with(placed, resident, there)), want));
      }
}

TEST_CASE("sites: random placements, budgets and chunks") {
  const TinyModel model = model_of(4);
  const auto want = run_once(model, with({}));
  std::mt19937_64 random(11);
  for (int i = 0; i < 40; ++i) {
    const uint64_t seed = random();
    const Placed placed = [seed](size_t op, bool prompt) {
      return (std::mt19937_64(seed + 2 * op + prompt)() >> 20) % 2 == 0;
    };
    PlanRigOptions o = with(placed, static_cast<double>(random() % 5) / 4, static_cast<double>(random() % 5) / 4);
    o.tile_bytes = 4096 << random() % 3;
    o.threads = 1 + random() % 2;
    INFO("seed ", seed);
    CHECK(same_bits(run_once(model, o, 1 + random() % 24), want));
  }
}

TEST_CASE("sites: forks, cuts and trees where KV lies on an accelerator") {
  const TinyModel model = model_of();
  const auto tokens = random_tokens(30, 5);
  const auto scene = [&](const Placed& placed) {
    PlanRig rig(model, with(placed));
    const SequenceId first = rig.sequence();
    run(rig, tokens, first, 9);
    const SequenceId second = rig.kv->fork(first).value();
    REQUIRE(rig.kv->truncate(second, 21).ok());
    Batch tree;  // two branches of a root
    tree.tree = true;
    tree.tokens = {{5, 21, second, 0b1, true}, {6, 22, second, 0b11, true}, {7, 22, second, 0b101, true}};
    auto rows = rig.step(tree);
    REQUIRE(rows.ok());
    REQUIRE(rig.kv->commit(second, 21, {21, 23}).ok());
    for (const SequenceId id : {second, first}) {
      Batch batch;
      rig.append(batch, id, tokens, 0, 2);
      const auto more = rig.step(batch);
      REQUIRE(more.ok());
      rows->insert(rows->end(), more->begin(), more->end());
    }
    rig.kv->destroy(first);
    rig.kv->destroy(second);
    return *rows;
  };
  const auto want = scene({});
  CHECK(same_bits(scene([](size_t, bool) { return true; }), want));
  CHECK(same_bits(scene([](size_t op, bool) { return op % 2 == 0; }), want));
}

TEST_CASE("sites: a copy that fails fails the step, and the next one runs as if nothing had happened") {
  const TinyModel model = model_of();
  const Placed placed = [](size_t op, bool) { return op % 3 != 1; };
  const auto tokens = random_tokens(30, 5);
  const auto want = run_once(model, with(placed));
  int failed = 0;
  for (uint64_t n = 1; n < 40; ++n) {
    INFO("copy ", n);
    PlanRig rig(model, with(placed, 0.4, 0.0));
    const SequenceId id = rig.sequence();
    rig.up->fail_copy(n);
    bool met = false;
    for (int i = 0; i < 10 && !met; ++i) {  // the copies of a step or two
      Batch batch;
      batch.prompt = true;
      rig.append(batch, id, tokens, 0, 9);
      met = !rig.step(batch).ok();
      CHECK(rig.length(id) == (met ? 0 : 9));
      REQUIRE(rig.kv->truncate(id, 0).ok());
    }
    failed += met;
    CHECK(same_bits(run(rig, tokens, id, 9), want));
  }
  CHECK(failed > 20);
}

}  // namespace sluice::testing
