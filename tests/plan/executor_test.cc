// The executor on a real CPU device: the right logits, and the same bits wherever anything lies.
#include <algorithm>
#include <cstring>
#include <random>
#include <thread>

#include "tests/plan/rig.h"

namespace sluice::testing {
namespace {

constexpr double f32_tolerance = 1e-4;

// All sequences start with a page boundary in the middle of the prompt.
const std::vector<int32_t>& prompt() {
  static const std::vector<int32_t> tokens = random_tokens(45, 3);
  return tokens;
}

std::vector<Floats> run_once(const TinyModel& model, const PlanRigOptions& options, size_t chunk = 64) {
  PlanRig rig(model, options);
  return rig.feed(rig.sequence(), prompt(), chunk);
}

PlanRigOptions with(double resident, uint32_t threads = 1, Compute compute = Compute::f32) {
  PlanRigOptions o;
  o.resident = resident;
  o.threads = threads;
  o.compute = compute;
  return o;
}

void check_near(const std::vector<Floats>& got, const std::vector<std::vector<double>>& want, double tolerance) {
  REQUIRE(got.size() == want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    INFO("row ", i);
    CHECK(distance(got[i], want[i]) < tolerance);
  }
}

}  // namespace

TEST_CASE("logits equal a forward pass in double precision") {
  TinyOptions o;
  SUBCASE("f32") {}
  SUBCASE("q8_0") { o.dtype = DType::q8_0; }
  SUBCASE("q4_0, tied") { o.dtype = DType::q4_0, o.tied = true; }
  SUBCASE("f16, biases, halves") { o.dtype = DType::f16, o.biases = true, o.pairs = false; }
  SUBCASE("head norms, window, softcap") { o.head_norms = true, o.window = 11, o.softcap = 3; }
  SUBCASE("norms behind, GELU, two ropes, windows on some layers, capped logits") {
    o.post_norms = true, o.activation = Activation::gelu_tanh, o.alternate = true, o.window = 11, o.logit_softcap = 4;
  }
  SUBCASE("norms behind, biases, quantized") { o.dtype = DType::q8_0, o.post_norms = true, o.biases = true; }
  SUBCASE("one kv head, one layer, no shared blocks") { o.n_kv_heads = 1, o.n_layers = 1, o.gap = 5000; }
  const TinyModel model = make_tiny(o);
  REQUIRE(validate(model.graph).ok());
  const TinyResult want = tiny_forward(model, linear_cells(prompt()));
  check_near(run_once(model, with(1)), want.logits, f32_tolerance);
  check_near(run_once(model, with(0.4), 7), want.logits, f32_tolerance);
}

TEST_CASE("the fast path is near the exact one") {
  TinyOptions o;
  o.dtype = DType::q8_0;
  const TinyModel model = make_tiny(o);
  // Activations of 8 bits are off by up to 0.4 % of a block's largest; this model is narrow and averages little.
  check_near(run_once(model, with(1, 1, Compute::fast)), tiny_forward(model, linear_cells(prompt())).logits, 0.1);
}

TEST_CASE("bits do not depend on residency, threads or how a prompt is cut") {
  for (const DType type : {DType::f32, DType::q8_0}) {
    TinyOptions o;
    o.dtype = type;
    o.tied = type == DType::q8_0;
    const TinyModel model = make_tiny(o);
    for (const Compute compute : {Compute::f32, Compute::fast}) {
      const auto want = run_once(model, with(1, 1, compute));
      for (const double resident : {1.0, 0.6, 0.0})
        for (const uint32_t threads : {1u, 2u})
          for (const size_t chunk : {size_t{1}, size_t{5}, size_t{8}, size_t{64}}) {
            INFO(resident, " ", threads, " ", chunk);
            CHECK(same_bits(run_once(model, with(resident, threads, compute), chunk), want));
          }
    }
  }
}

namespace {

void check_prompts(const TinyModel& model, cpu::Prompts prompts) {
  const auto options = [&](double resident, uint32_t threads, uint32_t step_tokens) {
    PlanRigOptions made = with(resident, threads, Compute::fast);
    made.prompts = prompts;
    made.step_tokens = step_tokens;
    return made;
  };
  const auto want = run_once(model, options(1, 1, 64));
  check_near(want, tiny_forward(model, linear_cells(prompt())).logits, 0.1);
  CHECK(!same_bits(want, run_once(model, with(1, 1, Compute::fast))));
  for (const double resident : {1.0, 0.3})
    for (const uint32_t threads : {1u, 2u})
      for (const size_t chunk : {size_t{1}, size_t{17}, size_t{64}}) {
        INFO(resident, " ", threads, " ", chunk);
        // Workspaces for fewer tokens than a group has hold one all the same.
        CHECK(same_bits(run_once(model, options(resident, threads, std::max<uint32_t>(4, chunk)), chunk), want));
      }
}

}  // namespace

TEST_CASE("prompts as bf16 are near the exact ones, and their bits depend on nothing either") {
  cpu::CpuOptions bf16;
  bf16.prompts = cpu::Prompts::bf16;
  if (const auto device = cpu::CpuDevice::create(bf16); !device.ok()) {
    CHECK(device.status().message().find("oneDNN") != std::string::npos);
    MESSAGE("skipped: ", device.status().message());
    return;
  }
  TinyOptions o;
  o.dtype = DType::q8_0;
  o.biases = true;
  check_prompts(make_tiny(o), cpu::Prompts::bf16);
}

TEST_CASE("prompts in blocks of 256 are near the exact ones, and their bits depend on nothing either") {
  TinyOptions o;
  o.dtype = DType::q6_k;
  o.hidden = 256;
  o.head_dim = 64;
  o.ffn = 512;
  o.biases = true;
  check_prompts(make_tiny(o), cpu::Prompts::wide8);
}

TEST_CASE("bits do not depend on tiles, slow disks or the order in which reads end") {
  const TinyModel model = make_tiny({});
  const auto want = run_once(model, with(1));
  for (const uint64_t tile : {4096u, 20000u, 1u << 20}) {
    PlanRigOptions o = with(0.3);
    o.tile_bytes = tile;
    o.store.shuffle = true;
    o.store.latency = std::chrono::microseconds(20);
    CHECK(same_bits(run_once(model, o, 16), want));
  }
}

TEST_CASE("plans of the planner, from the least budget to plenty, give the same bits") {
  TinyOptions tiny;
  tiny.n_layers = 8;
  tiny.ffn = 256;
  const TinyModel model = make_tiny(tiny);
  PlanRigOptions o;
  o.sequences = 1;
  o.step_tokens = 16;
  o.logit_rows = 16;
  o.context = 1024;
  const auto want = run_once(model, o, 16);
  uint64_t streamed = 0, spilling = 0;
  for (uint64_t ram = 1536 * KiB; ram <= 8 * MiB; ram += 512 * KiB) {
    plan::PlanRequest r;
    r.ram_budget = o.ram = ram;
    r.context = o.context;
    r.step_tokens = r.logit_rows = 16;
    r.taps = o.taps;
    r.compute = o.compute;
    r.page_tokens = o.page_tokens;
    r.spill_limit = GiB;
    const auto plan = plan::make_plan(model.graph, test_machine(), r);
    if (!plan.ok()) continue;
    streamed += plan::traffic(model.graph, *plan, false).disk_bytes > 0;
    spilling += plan->movement.spill_bytes > 0;
    CHECK(same_bits(run_once(model, o, 16), want));
  }
  CHECK(streamed > 0);
  CHECK(spilling > 0);
}

TEST_CASE("a batch of several sequences equals each alone") {
  const TinyModel model = make_tiny({});
  std::vector<std::vector<int32_t>> texts;
  for (const size_t n : {17u, 1u, 30u, 8u}) texts.push_back(random_tokens(n, 20 + n));
  const auto continued = random_tokens(4, 9);
  std::vector<std::vector<Floats>> alone;
  for (const auto& text : texts) {
    PlanRig rig(model);
    const SequenceId s = rig.sequence();
    alone.push_back(rig.feed(s, text));
    for (const Floats& row : rig.feed(s, continued)) alone.back().push_back(row);
  }
  for (const uint32_t groups : {0u, 1u, 2u}) {
    PlanRigOptions o = with(0.5, 2);
    o.kv_groups = groups;
    PlanRig rig(model, o);
    std::vector<SequenceId> ids;
    Batch batch;
    for (const auto& text : texts) {
      ids.push_back(rig.sequence());
      rig.append(batch, ids.back(), text, 0, text.size());
    }
    auto rows = rig.step(batch).value();
    Batch next;
    for (const SequenceId id : ids) rig.append(next, id, continued, 0, continued.size());
    const auto more = rig.step(next).value();
    size_t at = 0, at_more = 0;
    for (size_t s = 0; s < texts.size(); ++s) {
      std::vector<Floats> mine(rows.begin() + static_cast<long>(at),
                               rows.begin() + static_cast<long>(at + texts[s].size()));
      mine.insert(mine.end(), more.begin() + static_cast<long>(at_more), more.begin() + static_cast<long>(at_more + 4));
      at += texts[s].size();
      at_more += 4;
      CHECK(same_bits(mine, alone[s]));
    }
  }
}

TEST_CASE("KV that goes to disk comes back bit-identical") {
  const TinyModel model = make_tiny({});
  const auto text = random_tokens(90, 4);
  PlanRig all(model);
  const auto want = all.feed(all.sequence(), text);
  for (const uint32_t groups : {1u, 3u})
    for (const uint32_t kept : {0u, 5u})
      for (const size_t chunk : {1u, 13u, 64u}) {
        INFO(groups, " ", kept, " ", chunk);
        PlanRigOptions o = with(0.5);
        o.sequences = 1;
        o.kv_groups = groups;
        o.kv_kept = kept;
        o.store.shuffle = true;
        PlanRig rig(model, o);
        const SequenceId s = rig.sequence();
        CHECK(same_bits(rig.feed(s, text, chunk), want));
        CHECK(rig.store.stats().bytes_written > 0);
        CHECK(rig.kv_budget->peak() <= rig.plan.kv_arena_bytes(plan::host_site));
      }
}

TEST_CASE("forks go their own ways") {
  const TinyModel model = make_tiny({});
  const auto text = random_tokens(21, 5), left = random_tokens(20, 6), right = random_tokens(20, 7);
  const auto joined = [&](const std::vector<int32_t>& more) {
    auto whole = text;
    whole.insert(whole.end(), more.begin(), more.end());
    PlanRig rig(model);
    auto rows = rig.feed(rig.sequence(), whole);
    rows.erase(rows.begin(), rows.begin() + static_cast<long>(text.size()));
    return rows;
  };
  const auto want_left = joined(left), want_right = joined(right);
  for (const uint32_t groups : {0u, 1u}) {
    PlanRigOptions o;
    o.kv_groups = groups;
    PlanRig rig(model, o);
    const SequenceId a = rig.sequence();
    rig.feed(a, text);
    const SequenceId b = rig.kv->fork(a).value();
    CHECK(rig.length(b) == text.size());
    CHECK(same_bits(rig.feed(a, left, 3), want_left));
    const SequenceId c = rig.kv->fork(b).value();
    CHECK(same_bits(rig.feed(b, right, 7), want_right));
    rig.kv->destroy(a);
    rig.kv->destroy(b);
    CHECK(same_bits(rig.feed(c, left), want_left));
  }
}

TEST_CASE("truncated sequences go on as if the rest had never been") {
  const TinyModel model = make_tiny({});
  const auto text = random_tokens(40, 8), other = random_tokens(40, 9);
  for (const uint32_t groups : {0u, 1u})
    for (const uint32_t keep : {0u, 1u, 8u, 13u, 32u, 39u}) {
      INFO(groups, " ", keep);
      std::vector<int32_t> whole(text.begin(), text.begin() + keep);
      whole.insert(whole.end(), other.begin(), other.end());
      PlanRig plain(model);
      auto want = plain.feed(plain.sequence(), whole);
      want.erase(want.begin(), want.begin() + keep);
      PlanRigOptions o;
      o.kv_groups = groups;
      o.sequences = 1;
      PlanRig rig(model, o);
      const SequenceId s = rig.sequence();
      rig.feed(s, text, 11);
      REQUIRE(rig.kv->truncate(s, keep).ok());
      CHECK(same_bits(rig.feed(s, other, 9), want));
      CHECK(rig.kv->truncate(s, rig.length(s) + 1).code() == Code::invalid_argument);
    }
}

namespace {

// A random tree of drafts behind `prefix`: parents, and for each node the path to it.
struct Tree {
  std::vector<int32_t> tokens;
  std::vector<int> parent;  // -1: the prefix
  std::vector<uint32_t> path(int node) const {
    std::vector<uint32_t> nodes;
    for (; node >= 0; node = parent[static_cast<size_t>(node)])
      nodes.insert(nodes.begin(), static_cast<uint32_t>(node));
    return nodes;
  }
};

Tree random_tree(uint32_t n, uint64_t seed) {
  std::mt19937_64 random(seed);
  Tree tree{random_tokens(n, seed), {}};
  for (uint32_t i = 0; i < n; ++i) tree.parent.push_back(i == 0 ? -1 : static_cast<int>(random() % (i + 1)) - 1);
  return tree;
}

Batch tree_batch(const Tree& tree, SequenceId id, uint32_t before) {
  Batch batch;
  batch.tree = true;
  for (uint32_t i = 0; i < tree.tokens.size(); ++i) {
    uint64_t bits = 0;
    const auto path = tree.path(static_cast<int>(i));
    for (const uint32_t node : path) bits |= uint64_t{1} << node;
    batch.tokens.push_back({tree.tokens[i], static_cast<int32_t>(before + path.size() - 1), id, bits, true});
  }
  return batch;
}

}  // namespace

TEST_CASE("a tree of drafts equals its paths, and the committed path goes on") {
  const TinyModel model = make_tiny({});
  const auto prefix = random_tokens(13, 11), after = random_tokens(9, 12);
  for (const uint32_t n : {5u, 40u, 64u})
    for (const uint32_t groups : {0u, 1u}) {
      INFO(n, " ", groups);
      const Tree tree = random_tree(n, n);
      PlanRigOptions o;
      o.kv_groups = groups;
      PlanRig rig(model, o);
      const SequenceId s = rig.sequence();
      rig.feed(s, prefix);
      const auto rows = rig.step(tree_batch(tree, s, 13)).value();
      const auto path = tree.path(static_cast<int>(n) - 1);
      std::vector<uint32_t> cells;
      for (const uint32_t node : path) cells.push_back(13 + node);
      const Status committed = rig.kv->commit(s, 13, cells);
      REQUIRE_MESSAGE(committed.ok(), committed.message());
      CHECK(rig.length(s) == 13 + path.size());
      const auto more = rig.feed(s, after);

      std::vector<int32_t> line = prefix;
      for (const uint32_t node : path) line.push_back(tree.tokens[node]);
      line.insert(line.end(), after.begin(), after.end());
      const auto want = tiny_forward(model, linear_cells(line)).logits;
      for (size_t i = 0; i < path.size(); ++i) CHECK(distance(rows[path[i]], want[13 + i]) < f32_tolerance);
      for (size_t i = 0; i < after.size(); ++i) CHECK(distance(more[i], want[13 + path.size() + i]) < f32_tolerance);
    }
}

TEST_CASE("a committed path behind a plain sequence leaves the bits of the plain run") {
  // A tree that is a line: every token sees all before it, as without a tree.
  const TinyModel model = make_tiny({});
  const auto text = random_tokens(30, 13);
  PlanRig plain(model), rig(model);
  const auto want = plain.feed(plain.sequence(), text);
  const SequenceId s = rig.sequence();
  Tree line{std::vector<int32_t>(text.begin() + 10, text.end()), {}};
  for (int i = 0; i < 20; ++i) line.parent.push_back(i - 1);
  auto rows = rig.feed(s, {text.begin(), text.begin() + 10});
  const auto last = rig.step(tree_batch(line, s, 10)).value();
  rows.insert(rows.end(), last.begin(), last.end());
  CHECK(same_bits(rows, want));
}

TEST_CASE("taps are the hidden states after their layers") {
  const TinyModel model = make_tiny({});
  PlanRig rig(model);
  Batch batch;
  rig.append(batch, rig.sequence(), prompt(), 0, 20);
  for (uint32_t i = 0; i < 20; ++i) batch.tokens[i].wants_logits = i % 3 == 1;
  batch.tap_layers = {2, 0};
  const auto result = rig.executor->step(batch);
  REQUIRE(result.ok());
  REQUIRE(result->n_rows == 7);
  const TinyResult want = tiny_forward(model, linear_cells({prompt().begin(), prompt().begin() + 20}));
  for (uint32_t tap = 0; tap < 2; ++tap)
    for (uint32_t row = 0; row < 7; ++row) {
      const float* at = result->taps + (tap * 7 + row) * 64;
      CHECK(distance(Floats(at, at + 64), want.hidden[batch.tap_layers[tap]][3 * row + 1]) < f32_tolerance);
      const float* logits = result->logits + row * 97;
      CHECK(distance(Floats(logits, logits + 97), want.logits[3 * row + 1]) < f32_tolerance);
    }
  Batch absent;
  rig.append(absent, SequenceId{0}, prompt(), 0, 1);
  absent.tap_layers = {3};
  CHECK(rig.executor->step(absent).status().code() == Code::invalid_argument);
}

TEST_CASE("batches that cannot be are refused and change nothing") {
  const TinyModel model = make_tiny({});
  PlanRigOptions o;
  o.step_tokens = o.logit_rows = 16;
  o.context = 24;
  o.sequences = 2;
  PlanRig rig(model, o);
  const SequenceId a = rig.sequence(), b = rig.sequence();
  const auto text = random_tokens(30, 1);
  rig.feed(a, {text.begin(), text.begin() + 9}, 16);
  const auto refused = [&](auto change) {
    Batch batch;
    rig.append(batch, a, text, 0, 2);
    rig.append(batch, b, text, 0, 2);
    change(batch);
    const auto result = rig.executor->step(batch);
    CHECK(result.status().code() == Code::invalid_argument);
    CHECK(rig.length(a) == 9);
    CHECK(rig.length(b) == 0);
  };
  refused([](Batch& batch) { batch.tokens.clear(); });
  refused([](Batch& batch) { batch.tokens[1].token = 97; });
  refused([](Batch& batch) { batch.tokens[1].token = -1; });
  refused([](Batch& batch) { std::swap(batch.tokens[1], batch.tokens[2]); });
  refused([](Batch& batch) { batch.tokens[3].sequence = SequenceId{7}; });
  refused([](Batch& batch) { batch.tap_layers = {0, 1, 2}; });
  refused([&](Batch& batch) { rig.append(batch, b, text, 0, 13); });
  refused([&](Batch& batch) {
    batch.tokens.clear();
    rig.append(batch, b, text, 0, 1);
    rig.append(batch, a, text, 0, 15);  // one more than the context holds
    batch.tokens.pop_back();
    batch.tokens.push_back(batch.tokens.back());
    batch.tokens.push_back(batch.tokens.back());
  });
  Batch full;
  rig.append(full, a, text, 0, 15);
  CHECK(rig.executor->step(full).ok());
  Batch beyond;
  rig.append(beyond, a, text, 0, 1);
  CHECK(rig.executor->step(beyond).status().message().find("context is 24") != std::string::npos);
}

TEST_CASE("a cancelled step leaves nothing behind") {
  const TinyModel model = make_tiny({});
  const auto want = run_once(model, with(1));
  for (const double resident : {1.0, 0.2}) {
    PlanRigOptions o = with(resident);
    o.store.latency = std::chrono::microseconds(200);
    PlanRig rig(model, o);
    const SequenceId s = rig.sequence();
    auto rows = rig.feed(s, {prompt().begin(), prompt().begin() + 12});
    for (int round = 0; round < 4; ++round) {
      Batch batch;
      rig.append(batch, s, prompt(), 12, 33);
      std::thread other([&] {
        std::this_thread::sleep_for(std::chrono::microseconds(300 * round));
        rig.executor->cancel();
      });
      if (round == 0) other.join();
      const auto result = rig.executor->step(batch);
      if (round != 0) other.join();
      if (result.ok()) {  // too late: it is for the next one
        REQUIRE(rig.kv->truncate(s, 12).ok());
        const auto cancelled = rig.executor->step(batch);
        CHECK(cancelled.status().code() == Code::cancelled);
      } else {
        CHECK(result.status().code() == Code::cancelled);
      }
      CHECK(rig.length(s) == 12);
    }
    for (const Floats& row : rig.feed(s, {prompt().begin() + 12, prompt().end()})) rows.push_back(row);
    CHECK(same_bits(rows, want));
  }
}

TEST_CASE("whichever read or write fails, a step fails cleanly and a later one works") {
  TinyOptions tiny;
  tiny.n_layers = 2;
  tiny.gap = 5000;
  const TinyModel model = make_tiny(tiny);
  const auto text = random_tokens(60, 15);
  PlanRig all(model);
  const auto want = all.feed(all.sequence(), text, 12);
  for (const uint32_t groups : {0u, 1u}) {
    uint64_t failed_steps = 0;
    for (uint64_t n = 1;; ++n) {
      INFO(groups, " ", n);
      PlanRigOptions o = with(0.3);
      o.sequences = 1;
      o.step_tokens = o.logit_rows = 12;
      o.kv_groups = groups;
      PlanRig rig(model, o);
      const SequenceId s = rig.sequence();
      bool hit = false;
      rig.store.set_fault([&hit, n](uint64_t i, const IoRequest&) { return i == n && (hit = true); });
      std::vector<Floats> rows;
      for (size_t done = 0; done < text.size();) {
        Batch batch;
        rig.append(batch, s, text, done, 12);
        auto some = rig.step(batch);
        if (!some.ok()) {
          ++failed_steps;
          CHECK(some.status().code() == Code::io_error);
          CHECK(some.status().message().find("file ") != std::string::npos);
          CHECK(rig.length(s) == done);
          some = rig.step(batch);
          REQUIRE_MESSAGE(some.ok(), some.status().message());
        }
        rows.insert(rows.end(), some->begin(), some->end());
        done += 12;
      }
      CHECK(same_bits(rows, want));
      rig.kv->destroy(s);
      rig.settle();
      CHECK(rig.kv_budget->used() == 0);
      rig.store.set_fault(nullptr);
      if (!hit) break;
    }
    CHECK(failed_steps > 20);
  }
}

TEST_CASE("a store that fails for a while is an error of each step, not the end") {
  const TinyModel model = make_tiny({});
  const auto text = random_tokens(60, 16);
  PlanRig all(model);
  const auto want = all.feed(all.sequence(), text, 12);
  PlanRigOptions o = with(0.3, 2);
  o.sequences = 1;
  o.step_tokens = o.logit_rows = 12;
  o.kv_groups = 1;
  PlanRig rig(model, o);
  const SequenceId s = rig.sequence();
  auto rows = rig.feed(s, {text.begin(), text.begin() + 36}, 12);
  rig.store.set_fault([](uint64_t, const IoRequest& r) { return r.op == IoRequest::Op::read; });
  for (int i = 0; i < 5; ++i) {
    Batch batch;
    rig.append(batch, s, text, 36, 12);
    CHECK(rig.step(batch).status().code() == Code::io_error);
    CHECK(rig.length(s) == 36);
  }
  rig.store.set_fault(nullptr);
  for (const Floats& row : rig.feed(s, {text.begin() + 36, text.end()}, 12)) rows.push_back(row);
  CHECK(same_bits(rows, want));
}

}  // namespace sluice::testing
