// Several sites: an accelerator that computes exactly as the CPU does, so that wherever an op is placed, and
// whatever is resident, streamed or handed over, the bits are those of the CPU alone.
#include <atomic>
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
    if (random() % 2 == 0)
      o.split = [seed](size_t op, bool prompt) {
        const uint64_t drawn = std::mt19937_64(seed - 2 * op - prompt)() >> 20;
        return drawn % 3 == 0 ? 0u : static_cast<uint32_t>(drawn % 96);
      };
    INFO("seed ", seed);
    CHECK(same_bits(run_once(model, o, 1 + random() % 24), want));
  }
}

namespace {

struct Tables {
  uint64_t near = 0, far = 0;  // that calls read: in the accelerator's memory, elsewhere
};

// What the calls of a step look up at the accelerator, which rotates, appends and attends.
Tables tables_of_step(PlanRig& rig, SequenceId id, size_t done, size_t n, bool prompt) {
  Tables tables;
  const SimMemory& memory = *rig.device_workspace;
  const auto look = [&](const void* p) {
    const auto* at = static_cast<const std::byte*>(p);
    (at >= memory.base() && at < memory.base() + memory.capacity() ? tables.near : tables.far) += 1;
  };
  rig.accelerator->watch([&](const KernelCall& call) {
    if (const auto* table = std::get_if<RopeTableCall>(&call)) look(table->positions), look(table->freqs);
    if (const auto* append = std::get_if<KvAppendCall>(&call)) look(append->tokens), look(append->spans);
    if (const auto* attend = std::get_if<AttentionCall>(&call)) look(attend->tokens), look(attend->spans);
  });
  Batch batch;
  batch.prompt = prompt;
  rig.append(batch, id, random_tokens(30, 5), done, n);
  CHECK(rig.step(batch).ok());
  rig.accelerator->watch({});
  return tables;
}

}  // namespace

TEST_CASE("sites: what an accelerator looks up when it decodes lies in its own memory") {
  const TinyModel model = model_of();
  for (const bool shared : {false, true}) {  // every second layer attended to by the CPU
    PlanRig rig(model, with([&](size_t op, bool) { return !shared || op % 8 < 4; }));
    const SequenceId id = rig.sequence();
    const Tables prompt = tables_of_step(rig, id, 0, 9, true), decode = tables_of_step(rig, id, 9, 1, false);
    CHECK(prompt.near == 0);
    CHECK(prompt.far > 0);
    CHECK(decode.far == 0);
    CHECK(decode.near == prompt.far);
  }
}

// --- FFNs that two sites compute at once

using RowOf = std::function<uint32_t(size_t op, bool prompt)>;

// Tiles of 16 rows of gate and up, of which there are 96.
PlanRigOptions with_split(uint32_t row, bool home_there, double resident, double device_resident) {
  PlanRigOptions o = with([home_there](size_t, bool) { return home_there; }, resident, device_resident);
  o.tile_bytes = 16 * 68;
  o.split = [row](size_t, bool) { return row; };
  return o;
}

TEST_CASE("sites: an FFN that is split at any tile gives the CPU's bits") {
  const TinyModel model = model_of(2);
  const auto want = run_once(model, with({}));
  {
    const PlanRig rig(model, with_split(16, true, 1, 1));
    size_t ffns = 0;
    for (size_t i = 0; i < model.graph.ops.size(); ++i) {
      const auto rows = plan::split_rows(model.graph, rig.plan.movement.weights, i);
      if (rows.empty()) continue;
      ++ffns;
      CHECK(rows == std::vector<uint32_t>{16, 32, 48, 64, 80});
    }
    CHECK(ffns == 2);
  }
  for (const uint32_t row : {16u, 32u, 48u, 64u, 80u})
    for (const bool home_there : {false, true})
      for (const auto& [resident, there] : {std::pair{1.0, 1.0}, {0.4, 0.4}, {1.0, 0.0}, {0.0, 0.0}}) {
        INFO("row ", row, " home ", home_there, " resident ", resident, " ", there);
        CHECK(same_bits(run_once(model, with_split(row, home_there, resident, there)), want));
      }
}

TEST_CASE("sites: both sites compute products of a split FFN, each of its rows alone") {
  const TinyModel model = model_of(2);
  PlanRig rig(model, with_split(32, true, 1, 1));
  const SequenceId id = rig.sequence();
  const auto on_host = [&] { return rig.device->totals()[KernelCall(MatmulCall{}).index()].calls; };
  const uint64_t before = on_host(), before_there = rig.accelerator->products();
  rig.feed(id, random_tokens(3, 5), 1);
  // 64 of 96 rows of gate and up are the host's: 4 tiles of each. Of 16 rows a tile there: 2 of gate and of up.
  CHECK(on_host() - before == 3 * 2 * (4 + 4));
  const plan::Traffic t = plan::traffic(model.graph, rig.plan, false);
  CHECK(t.computed_bytes[0] == 2 * 2 * 64 * 68);
  CHECK(t.link_bytes[1] == 0);
  CHECK(t.hand_overs == 2 * 2);
  CHECK(rig.accelerator->products() > before_there);
}

TEST_CASE("sites: batches of 1 to 16 tokens through split FFNs") {
  const TinyModel model = model_of(2);
  const auto tokens = random_tokens(32, 5);
  const auto decoded = [&](const PlanRigOptions& o, size_t n) {
    PlanRig rig(model, o);
    return rig.feed(rig.sequence(), tokens, n);
  };
  const auto want = decoded(with({}), 1);
  for (size_t n = 1; n <= 16; ++n)
    for (const bool home_there : {false, true}) {
      INFO(n, " tokens, home ", home_there);
      CHECK(same_bits(decoded(with_split(n % 2 == 0 ? 32 : 80, home_there, 0.5, 0.5), n), want));
    }
}

TEST_CASE("sites: what is split belongs to the numerics") {
  const TinyModel model = model_of(2);
  const auto hash = [&](uint32_t row, uint32_t prompt_row) {
    PlanRigOptions o = with_split(0, true, 1, 1);
    o.split = [=](size_t, bool prompt) { return prompt ? prompt_row : row; };
    return PlanRig(model, o).plan.numerics.hash();
  };
  PlanRigOptions whole = with_split(0, true, 1, 1);
  whole.split = nullptr;
  CHECK(hash(0, 0) == PlanRig(model, whole).plan.numerics.hash());
  CHECK(hash(16, 0) != hash(0, 0));
  CHECK(hash(16, 0) != hash(32, 0));
  CHECK(hash(16, 0) != hash(0, 16));
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

TEST_CASE("sites: steps through split FFNs that fail anywhere leave nothing behind") {
  const TinyModel model = model_of();
  const auto tokens = random_tokens(30, 5);
  for (const bool home_there : {false, true}) {
    const PlanRigOptions o = with_split(48, home_there, 0, 0);
    const auto want = run_once(model, o);
    int failed = 0;
    for (uint64_t n = 1; n < 60; n += 3) {
      INFO("read and copy ", n, " home ", home_there);
      PlanRig rig(model, o);
      const SequenceId id = rig.sequence();
      for (const bool read : {true, false}) {
        std::atomic<uint64_t> left = n;
        if (read) rig.store.set_fault([&left](uint64_t, const IoRequest&) { return --left == 0; });
        else rig.up->fail_copy(n);
        bool met = false;
        for (int i = 0; i < 10 && !met; ++i) {
          Batch batch;
          rig.append(batch, id, tokens, 0, 3);
          met = !rig.step(batch).ok();
          CHECK(rig.length(id) == (met ? 0 : 3));
          REQUIRE(rig.kv->truncate(id, 0).ok());
        }
        failed += met;
        rig.store.set_fault(nullptr);
        rig.up->fail_copy(0);
        CHECK(same_bits(run(rig, tokens, id, 9), want));
        REQUIRE(rig.kv->truncate(id, 0).ok());
      }
    }
    CHECK(failed > 20);
  }
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

// --- KV of one layer at both sites

// All at the accelerator, but pages of 8 tokens from `near` on.
PlanRigOptions with_near(uint32_t near, uint32_t kv_groups = 0) {
  PlanRigOptions o = with([](size_t, bool) { return true; });
  o.near_pages = near;
  o.kv_groups = kv_groups;
  return o;
}

TEST_CASE("sites: attention at both sites is within rounding of attention at one, and alike wherever all is near") {
  const TinyModel model = model_of();
  const auto whole = run_once(model, with({}));
  for (const uint32_t near : {1u, 2u, 3u}) {
    const auto rows = run_once(model, with_near(near));
    REQUIRE(rows.size() == whole.size());
    bool apart = false;
    for (size_t i = 0; i < rows.size(); ++i) {
      INFO("near ", near, " token ", i);
      if (i < 8 * near) CHECK(same_bits({rows[i]}, {whole[i]}));
      CHECK(distance(rows[i], {whole[i].begin(), whole[i].end()}) < 2e-2);  // of 8 bits: one step of rounding
      apart = apart || !same_bits({rows[i]}, {whole[i]});
    }
    CHECK(apart);
  }
  CHECK(same_bits(run_once(model, with_near(4)), whole));  // 30 tokens
}

TEST_CASE("sites: attention at both sites has the same bits in any chunks, movement and memory, KV on disk too") {
  const TinyModel model = model_of();
  const auto want = run_once(model, with_near(2));
  for (const size_t chunk : {1u, 3u, 8u, 24u}) CHECK(same_bits(run_once(model, with_near(2), chunk), want));
  for (const auto& [resident, there] : {std::pair{1.0, 1.0}, {0.0, 0.0}, {0.4, 1.0}}) {
    PlanRigOptions o = with_near(2);
    o.resident = resident, o.device_resident = there;
    CHECK(same_bits(run_once(model, o), want));
  }
  CHECK(same_bits(run_once(model, with_near(2, 1)), want));
}

TEST_CASE("sites: each site attends to its own pages, and takes only new tokens that go there") {
  const TinyModel model = model_of(1);
  PlanRig rig(model, with_near(2));
  const SequenceId id = rig.sequence();
  rig.feed(id, random_tokens(12, 5), 4);
  const auto calls = [&](const KernelCall& call) { return rig.device->totals()[call.index()].calls; };
  CHECK(calls(AttentionCall{}) == 0);  // 12 tokens are two pages
  uint64_t merged = 0, appended = 0;
  rig.accelerator->watch([&](const KernelCall& call) {
    merged += std::holds_alternative<MergeStatesCall>(call);
    appended += std::holds_alternative<KvAppendCall>(call);
  });
  rig.feed(id, random_tokens(8, 6), 8);  // four to either site
  CHECK(merged == 1);
  CHECK(appended == 1);
  CHECK(calls(AttentionCall{}) == 1);
  CHECK(calls(KvAppendCall{}) == 1);
  rig.feed(id, random_tokens(3, 7), 1);
  CHECK(merged == 4);
  CHECK(appended == 1);
  CHECK(calls(AttentionCall{}) == 4);
  CHECK(calls(KvAppendCall{}) == 4);
  rig.accelerator->watch({});
  CHECK(rig.device_kv_budget->used() == 2 * 2 * rig.plan.movement.page_slot_bytes);
}

TEST_CASE("sites: forks, cuts and trees across the end of the near pages") {
  const TinyModel model = model_of();
  const auto tokens = random_tokens(30, 5);
  for (const uint32_t near : {2u, 3u}) {
    PlanRig rig(model, with_near(near));
    const SequenceId first = rig.sequence();
    run(rig, tokens, first, 9);
    const SequenceId second = rig.kv->fork(first).value();
    REQUIRE(rig.kv->truncate(second, 8 * near - 2).ok());
    Batch tree;  // a root, a path that is dropped, and one that is kept, from the far page into the near one
    tree.tree = true;
    const auto at = static_cast<int32_t>(8 * near - 2);
    tree.tokens = {{tokens[8 * near - 2], at, second, 0b1, false},
                   {7, at + 1, second, 0b11, false},
                   {9, at + 1, second, 0b101, false},
                   {tokens[8 * near - 1], at + 1, second, 0b1001, false},
                   {tokens[8 * near], at + 2, second, 0b11001, false}};
    REQUIRE(rig.step(tree).ok());
    REQUIRE(rig.kv->commit(second, 8 * near - 2, {8 * near - 2, 8 * near + 1, 8 * near + 2}).ok());
    for (const SequenceId id : {second, first}) {
      PlanRig plain(model, with_near(near));
      const SequenceId alone = plain.sequence();
      const uint32_t held = rig.length(id);
      std::vector<int32_t> text(tokens.begin(), tokens.begin() + held);
      text.push_back(3);
      const auto want = run(plain, text, alone, 9);
      Batch batch;
      rig.append(batch, id, {3}, 0, 1);
      const auto got = rig.step(batch);
      REQUIRE(got.ok());
      INFO("near ", near, " held ", held);
      CHECK(same_bits(*got, {want.back()}));
    }
    rig.kv->destroy(first);
    rig.kv->destroy(second);
  }
}

TEST_CASE("sites: near pages belong to the numerics") {
  const TinyModel model = model_of(1);
  const auto hash = [&](uint32_t near) { return PlanRig(model, with_near(near)).plan.numerics.hash(); };
  CHECK(hash(2) != hash(3));
  CHECK(hash(2) != hash(plan::all_pages));
  CHECK(hash(2) == hash(2));
}

}  // namespace sluice::testing
