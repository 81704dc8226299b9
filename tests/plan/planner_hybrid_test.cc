// The planner with an accelerator: budgets hold at every site, what it chooses is close to the best there is, and more
// memory never makes it slower.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <random>

#include "core/bytes.h"
#include "offload/plan/cost_model.h"
#include "offload/plan/planner.h"
#include "offload/plan/planner_sites.h"
#include "tests/support/gpu_machine.h"
#include "tests/support/tiny_graph.h"

namespace sluice::testing {
namespace {

using plan::accelerator_site;
using plan::BlockRole;
using plan::host_site;
using plan::make_plan;
using plan::Plan;
using plan::PlanRequest;

struct Random {
  std::mt19937_64 engine;
  explicit Random(uint64_t seed) : engine(seed) {}
  uint32_t upto(uint64_t n) { return static_cast<uint32_t>(engine() % n); }
  double between(double low, double high) {  // in equal ratios
    return low * std::pow(high / low, std::uniform_real_distribution<double>(0, 1)(engine));
  }
};

Machine machine_of(double cpu_gb_s, double gpu_gb_s, double link_gb_s, double latency_us) {
  Machine m = testing::gpu_machine(cpu_gb_s, gpu_gb_s, link_gb_s, latency_us);
  m.devices[0].call_us = 1;
  m.devices[0].matmul_gflops[DType::f32] = 20 * cpu_gb_s;
  return m;
}
Machine usual_machine() { return machine_of(20, 400, 10, 5); }

Machine random_machine(Random& random) {
  return machine_of(random.between(2, 50), random.between(20, 1000), random.between(0.5, 30), random.between(0.5, 20));
}

TinyOptions small(uint32_t n_layers) {
  TinyOptions o;
  o.n_layers = n_layers;
  o.hidden = 256;
  o.ffn = 1024;
  o.head_dim = 64;
  o.n_vocab = 512;
  return o;
}

PlanRequest request_of(uint64_t vram, uint64_t ram = GiB, uint32_t context = 512) {
  PlanRequest r;
  r.accelerators = {{"gpu 0", vram, 64 * KiB, {{"context", 100'000}}, true}};
  r.ram_budget = ram;
  r.context = context;
  r.page_tokens = 16;
  r.spill_limit = UINT64_MAX;
  r.fixed = {{"tables", 12'345}};
  return r;
}

uint64_t held(const plan::Holding& site) {
  uint64_t sum = 0;
  for (const auto& item : site.memory) sum += item.bytes;
  return sum;
}

double seconds(const Graph& g, const Machine& m, const PlanRequest& r, const Plan& p) {
  return plan::request_seconds(g, m, p, r.depth, r.prompt);
}

// What is lent fits the room that it is lent, is used when decoding, and stays nowhere else.
void check_lent(const Graph& g, const Plan& p, uint8_t site) {
  const plan::Holding& h = p.movement.sites[site];
  if (site == host_site) CHECK(h.lent.empty());
  const auto uses = plan::block_uses(g, p, false, site);
  uint64_t lent = 0;
  for (size_t i = 0; i < h.resident.size(); ++i) {
    if (!h.lends(i)) continue;
    lent += p.movement.weights.blocks[i].slot_bytes;
    CHECK(uses[i] > 0);
    CHECK(!h.resident[i]);
  }
  CHECK(lent <= plan::lent_bytes(g, p, site));
  if (lent > 0) CHECK(p.movement.small_step >= plan::few_tokens);
  CHECK(p.movement.small_step < p.workspace.tokens);
}

void check_site(const Graph& g, const Plan& p, uint8_t site) {
  const plan::Holding& h = p.movement.sites[site];
  CHECK(held(h) <= h.budget);
  CHECK(h.weight_arena_bytes() % io_unit == 0);
  REQUIRE(h.resident.size() == p.movement.weights.blocks.size());
  uint64_t resident = 0, largest = 0;
  for (size_t i = 0; i < h.resident.size(); ++i) {
    const plan::WeightBlock& b = p.movement.weights.blocks[i];
    if (h.resident[i]) resident += b.slot_bytes;
    if (b.role == BlockRole::vector && p.computes(site)) CHECK(h.resident[i]);
    if (b.role == BlockRole::matrix) largest = std::max(largest, b.slot_bytes);
  }
  CHECK(resident == h.resident_bytes);
  check_lent(g, p, site);
  const bool streams =
      !plan::streamed_blocks(g, p, false, site).empty() || !plan::streamed_blocks(g, p, true, site, true).empty();
  if (streams) {
    CHECK(h.staging_bytes >= 3 * largest);
    CHECK(h.ahead_bytes + 2 * largest <= h.staging_bytes);
  }
}

// Whatever the accelerator does not hold comes through the host: kept there, or passing.
void check_feeding(const Plan& p) {
  uint64_t largest = 0;
  for (const plan::WeightBlock& b : p.movement.weights.blocks)
    if (b.role == BlockRole::matrix) largest = std::max(largest, b.slot_bytes);
  CHECK(p.host().staging_bytes >= 4 * largest);
}

void check_kv(const Graph& g, const PlanRequest& r, const Plan& p) {
  const auto& at = p.numerics.kv_site;
  REQUIRE(at.size() == g.n_layers);
  for (size_t i = 0; i < g.ops.size(); ++i)
    if (const auto* attention = std::get_if<AttentionOp>(&g.ops[i])) {
      CHECK(p.numerics.decode.op_site[i] == at[attention->layer]);
      CHECK(p.numerics.prompt.op_site[i] == at[attention->layer]);
    }
  const uint32_t pages = p.movement.pages_per_sequence, near = std::min(p.numerics.near_pages, pages);
  const auto there = std::count(at.begin(), at.end(), accelerator_site);
  CHECK(near > 0);
  CHECK(p.numerics.has_far_pages() == (near < pages));
  CHECK(p.workspace.far_pages == (near < pages));
  if (near < pages) CHECK(there > 0);
  for (uint8_t site = 0; site < p.movement.sites.size(); ++site) {
    const plan::Holding& h = p.movement.sites[site];
    const auto here = std::count(at.begin(), at.end(), site);
    const uint64_t per_sequence = site != host_site ? here * near : here * pages + there * (pages - near);
    const uint64_t staged = site != host_site && near < pages ? 4 * plan::staged_pages : 0;
    const uint64_t whole = 2 * r.sequences * per_sequence + staged;
    CHECK(h.kv_pages <= whole);
    CHECK((h.kv_group_pages == 0) == (h.kv_pages == whole));
    if (site != host_site) CHECK(h.kv_pages == whole);
    if (h.kv_group_pages == 0) CHECK(h.kv_kept_pages == h.kv_pages);
  }
  CHECK((p.movement.spill_bytes == 0) == (p.host().kv_group_pages == 0));
}

// Where tiles begin, so that none is needed at both sites; and nothing that was pinned.
int check_splits(const Graph& g, const PlanRequest& r, const Plan& p) {
  int n = 0;
  for (const plan::Placement* placement : {&p.numerics.decode, &p.numerics.prompt})
    for (size_t op = 0; op < placement->splits.size(); ++op) {
      const plan::Split split = placement->splits[op];
      if (split.row == 0) continue;
      ++n;
      CHECK(split.site == 1 - placement->op_site[op]);
      const auto rows = plan::split_rows(g, p.movement.weights, op);
      CHECK(std::count(rows.begin(), rows.end(), split.row) == 1);
      if (!r.pinned.empty()) CHECK(r.pinned[op] == plan::any_site);
    }
  return n;
}

void check_plan(const Graph& g, const PlanRequest& r, const Plan& p) {
  REQUIRE(p.numerics.sites.size() == p.movement.sites.size());
  REQUIRE(p.numerics.decode.op_site.size() == g.ops.size());
  REQUIRE(p.numerics.prompt.op_site.size() == g.ops.size());
  CHECK(p.host().budget == r.ram_budget);
  for (uint8_t site = 0; site < p.movement.sites.size(); ++site) check_site(g, p, site);
  check_kv(g, r, p);
  check_splits(g, r, p);
  CHECK(p.numerics.decode.op_site[0] == p.numerics.decode.op_site[1]);
  CHECK(p.numerics.prompt.op_site[0] == p.numerics.prompt.op_site[1]);
  CHECK(p.prediction.decode_tok_s > 0);
  CHECK(p.prediction.prefill_tok_s > 0);
  CHECK(p.prediction.bottleneck_share > 0);
  CHECK(p.prediction.bottleneck_share <= 1);
  CHECK(!p.prediction.bottleneck.empty());
  if (p.movement.sites.size() == 1) return;
  CHECK(p.movement.sites[1].budget == r.accelerators.front().budget);
  CHECK(p.computes(accelerator_site));
  check_feeding(p);
}

TEST_SUITE_BEGIN("one thread");

TEST_CASE("hybrid planner: random graphs, machines and budgets") {
  Random random(5);
  int refused = 0, on_cpu = 0, mixed = 0, on_accelerator = 0, splits = 0, far = 0;
  for (int model_index = 0; model_index < 20; ++model_index) {
    TinyOptions o = small(1 + random.upto(5));
    o.tied = random.upto(2) == 0;
    o.biases = random.upto(3) == 0;
    o.post_norms = random.upto(3) == 0;
    o.gap = random.upto(2) == 0 ? 8192 : 0;
    const TinyModel model = make_tiny(o);
    for (int i = 0; i < 8; ++i) {
      PlanRequest r =
          request_of(uint64_t{1} << (19 + random.upto(8)), uint64_t{1} << (20 + random.upto(8)), 1 + random.upto(3000));
      r.accelerators.front().budget += random.upto(1'000'000);
      r.accelerators.front().wanted = random.upto(2) == 0;
      r.sequences = 1 + random.upto(4);
      r.logit_rows = 1 + random.upto(20);
      r.step_tokens = random.upto(3) == 0 ? 1 + random.upto(100) : 0;
      r.compute = random.upto(2) ? Compute::fast : Compute::f32;
      const Machine machine = random_machine(random);
      const auto p = make_plan(model.graph, machine, r);
      if (!p.ok()) {
        CHECK(p.status().code() == Code::over_budget);
        ++refused;
        continue;
      }
      CAPTURE(model_index);
      CAPTURE(i);
      check_plan(model.graph, r, *p);
      splits += check_splits(model.graph, r, *p);
      far += p->numerics.has_far_pages();
      const bool two = p->movement.sites.size() == 2;
      ++(!two ? on_cpu : p->computes(host_site) ? mixed : on_accelerator);
    }
  }
  CHECK(refused > 0);
  CHECK(on_cpu > 0);
  CHECK(mixed > 0);
  CHECK(on_accelerator > 0);
  CHECK(splits > 0);
  CHECK(far > 0);
}

TEST_CASE("hybrid planner: what fits the accelerator is computed there, and the host holds nothing of it") {
  const TinyModel model = make_tiny(small(4));
  const auto p = make_plan(model.graph, usual_machine(), request_of(256 * MiB));
  REQUIRE_MESSAGE(p.ok(), p.status().message());
  CHECK(!p->computes(host_site));
  CHECK(p->host().resident_bytes == 0);
  CHECK(p->host().kv_pages == 0);
  CHECK(plan::traffic(model.graph, *p, false).link_bytes[1] == 0);
  CHECK(plan::traffic(model.graph, *p, true).disk_bytes == 0);
}

TEST_CASE("hybrid planner: an accelerator that is slower than the CPU is not used") {
  const TinyModel model = make_tiny(small(3));
  const auto p = make_plan(model.graph, machine_of(100, 2, 0.1, 50), request_of(256 * MiB));
  REQUIRE(p.ok());
  CHECK(p->numerics.sites.size() == 1);
}

TEST_CASE("hybrid planner: without an accelerator the plan is that for the CPU, as with one that cannot be used") {
  const TinyModel model = make_tiny(small(3));
  PlanRequest r = request_of(200'000);
  r.accelerators.front().wanted = false;
  const auto unusable = make_plan(model.graph, usual_machine(), r);
  r.accelerators.clear();
  const auto alone = make_plan(model.graph, usual_machine(), r);
  REQUIRE(unusable.ok());
  REQUIRE(alone.ok());
  CHECK(unusable->numerics.hash() == alone->numerics.hash());
  CHECK(unusable->host().resident == alone->host().resident);
  CHECK(unusable->movement.sites.size() == 1);
}

// The number in "…works is --vram 12M".
uint64_t named_least(const Status& status, const std::string& flag) {
  const std::string &text = status.message(), what = "works is " + flag + " ";
  const size_t at = text.find(what);
  REQUIRE_MESSAGE(at != std::string::npos, text);
  return std::stoull(text.substr(at + what.size())) * MiB;
}

TEST_CASE("hybrid planner: too little VRAM that was asked for names the least that works") {
  const TinyModel model = make_tiny(small(3));
  const auto refused = make_plan(model.graph, usual_machine(), request_of(100'000));
  REQUIRE(!refused.ok());
  CHECK(refused.status().code() == Code::over_budget);
  const uint64_t least = named_least(refused.status(), "--vram");
  const auto works = make_plan(model.graph, usual_machine(), request_of(least));
  REQUIRE_MESSAGE(works.ok(), works.status().message());
  const auto less = make_plan(model.graph, usual_machine(), request_of(least - MiB));
  REQUIRE(!less.ok());
  CHECK(named_least(less.status(), "--vram") == least);
}

TEST_CASE("hybrid planner: too little RAM names the least that works with this accelerator") {
  const TinyModel model = make_tiny(small(3));
  const auto refused = make_plan(model.graph, usual_machine(), request_of(64 * MiB, 100'000));
  REQUIRE(!refused.ok());
  const uint64_t least = named_least(refused.status(), "--ram");
  const auto works = make_plan(model.graph, usual_machine(), request_of(64 * MiB, least));
  REQUIRE_MESSAGE(works.ok(), works.status().message());
  check_plan(model.graph, request_of(64 * MiB, least), *works);
  CHECK(!make_plan(model.graph, usual_machine(), request_of(64 * MiB, least - MiB)).ok());
}

TEST_CASE("hybrid planner: devices and links that are not there are named") {
  const TinyModel model = make_tiny(small(1));
  PlanRequest r = request_of(64 * MiB);
  Machine machine = usual_machine();
  machine.links.clear();
  auto p = make_plan(model.graph, machine, r);
  CHECK(p.status().code() == Code::invalid_argument);
  CHECK(p.status().message().find("'gpu 0'") != std::string::npos);
  r.accelerators.front().device = "gpu 7";
  p = make_plan(model.graph, usual_machine(), r);
  CHECK(p.status().code() == Code::invalid_argument);
  CHECK(p.status().message().find("'gpu 7'") != std::string::npos);
}

TEST_CASE("hybrid planner: equal requests give equal plans") {
  const TinyModel model = make_tiny(small(4));
  const auto a = make_plan(model.graph, usual_machine(), request_of(12 * MiB));
  const auto b = make_plan(model.graph, usual_machine(), request_of(12 * MiB));
  REQUIRE(a.ok());
  REQUIRE(b.ok());
  CHECK(a->numerics.decode == b->numerics.decode);
  CHECK(a->numerics.hash() == b->numerics.hash());
  CHECK(a->movement.sites[1].resident == b->movement.sites[1].resident);
}

TEST_CASE("hybrid planner: more VRAM or RAM is never slower" * doctest::test_suite("exactness")) {
  constexpr double tolerance = 1.05;  // whole blocks, and run-ahead that grows with the budget
  Random random(11);
  for (int i = 0; i < 6; ++i) {
    const TinyModel model = make_tiny(small(2 + random.upto(4)));
    const Machine machine = random_machine(random);
    for (const bool vram : {true, false}) {
      double before = 1e30;
      // With less RAM, KV that goes to disk takes half of what is left, of whole blocks: no even function.
      for (uint64_t budget = vram ? 2 * MiB : 10 * MiB; budget < 80 * MiB; budget += budget / 4) {
        const PlanRequest r = vram ? request_of(budget) : request_of(8 * MiB, budget);
        const auto p = make_plan(model.graph, machine, r);
        if (!p.ok()) continue;
        const double now = seconds(model.graph, machine, r, *p);
        CAPTURE(i);
        CAPTURE(vram);
        CAPTURE(budget);
        CHECK(now <= before * tolerance);
        before = std::min(before, now);
      }
    }
  }
}

// The context is more than twice what VRAM holds beside the weights. Short texts then need nothing but the accelerator.
TEST_CASE("hybrid planner: KV that does not fit beside the weights is parted, where its layers would else be") {
  const TinyModel model = make_tiny(small(4));
  const Graph& g = model.graph;
  const PlanRequest r = request_of(28 * MiB, GiB, 16384);
  const auto p = make_plan(g, usual_machine(), r);
  REQUIRE_MESSAGE(p.ok(), p.status().message());
  check_plan(g, r, *p);
  REQUIRE(p->numerics.has_far_pages());
  CHECK(p->numerics.decode.is_all_at(accelerator_site));
  CHECK(p->computes(host_site));
  PlanRequest whole = r;  // who asks for the KV there gets all of it
  for (const Op& op : g.ops) {
    const bool kv = std::holds_alternative<AttentionOp>(op);
    whole.pinned.push_back(kv ? accelerator_site : plan::any_site);
  }
  const auto q = make_plan(g, usual_machine(), whole);
  if (q.ok()) CHECK(seconds(g, usual_machine(), r, *p) < seconds(g, usual_machine(), r, *q));
  const double near = plan::step_cost(g, usual_machine(), *p, 1, 16).seconds();
  const double far = plan::step_cost(g, usual_machine(), *p, 1, 16000).seconds();
  CHECK(near < far);
  CHECK(plan::step_cost(g, usual_machine(), *p, 1, 16).host_s == 0);
  CHECK(plan::step_cost(g, usual_machine(), *p, 1, 16000).host_s > 0);
}

TEST_CASE("hybrid planner: short prompts are computed as decoding is up to where that is no longer faster") {
  const TinyModel model = make_tiny(small(6));
  const Graph& g = model.graph;
  Random random(41);
  std::vector<uint32_t> lengths;
  for (int i = 0; i < 30; ++i) {
    Machine machine = random_machine(random);
    machine.devices[0].matmul_gflops[DType::f32] *= random.between(0.01, 1);
    const auto p = make_plan(g, machine, request_of(4 * MiB + random.upto(16 * MiB)));
    if (!p.ok() || p->movement.sites.size() == 1) continue;
    const auto seconds = [&](uint32_t n, bool prompt) {
      return plan::step_cost(g, machine, *p, n, 0, prompt).seconds();
    };
    const uint32_t most = p->numerics.short_prompt;
    REQUIRE(most >= 1);
    REQUIRE(most <= plan::most_short_prompt);
    if (most > 1) CHECK(seconds(most, false) <= seconds(most, true));
    if (most < plan::most_short_prompt) CHECK(seconds(most + 1, true) < seconds(most + 1, false));
    if (p->numerics.decode == p->numerics.prompt) CHECK(most == plan::most_short_prompt);
    lengths.push_back(most);
  }
  std::sort(lengths.begin(), lengths.end());
  CHECK(lengths.front() < lengths.back());
  Plan other = *make_plan(g, usual_machine(), request_of(12 * MiB));
  const std::string hash = other.numerics.hash();
  other.numerics.short_prompt = other.numerics.short_prompt == 3 ? 4 : 3;
  CHECK(other.numerics.hash() != hash);
}

// --- places that the user chose

TEST_CASE("hybrid planner: places that were chosen are kept, with their weights") {
  const TinyModel model = make_tiny(small(3));
  const Graph& g = model.graph;
  Random random(31);
  int kept = 0;
  for (int i = 0; i < 40; ++i) {
    PlanRequest r = request_of(2 * MiB + random.upto(20 * MiB));
    for (size_t op = 0; op < g.ops.size(); ++op)
      r.pinned.push_back(op == 0 ? plan::any_site : std::array<uint8_t, 3>{plan::any_site, 0, 1}[random.upto(3)]);
    const auto p = make_plan(g, random_machine(random), r);
    if (!p.ok()) {
      CHECK(p.status().code() == Code::over_budget);
      CHECK(p.status().message().find("--vram") != std::string::npos);
      continue;
    }
    ++kept;
    check_plan(g, r, *p);
    for (size_t op = 0; op < g.ops.size(); ++op) {
      const bool kv = std::holds_alternative<AttentionOp>(g.ops[op]);
      if (kv && r.pinned[op] == accelerator_site) CHECK(!p->numerics.has_far_pages());
      if (r.pinned[op] == plan::any_site) continue;
      CHECK(p->numerics.decode.op_site[op] == r.pinned[op]);
      if (r.pinned[op] != accelerator_site) continue;
      for (const TensorId id : matrices(g.ops[op]))
        for (const plan::Tile& tile : p->movement.weights.of(id)) CHECK(p->movement.sites[1].resident[tile.block]);
    }
  }
  CHECK(kept > 10);
  CHECK(kept < 40);
}

TEST_CASE("hybrid planner: places on an accelerator that is not there are refused") {
  const TinyModel model = make_tiny(small(1));
  PlanRequest r = request_of(64 * MiB);
  r.accelerators.clear();
  r.pinned.assign(model.graph.ops.size(), accelerator_site);
  CHECK(make_plan(model.graph, usual_machine(), r).status().code() == Code::unsupported);
  r.pinned.pop_back();
  CHECK(make_plan(model.graph, usual_machine(), r).status().code() == Code::invalid_argument);
}

// --- against all placements there are

// Bit b of `bits`: where the op b + 1 is.
plan::Places places_of(const Graph& g, uint32_t bits, bool streamed_prompt) {
  plan::Places places;
  for (size_t i = 0; i < g.ops.size(); ++i) places.decode.op_site.push_back(i == 0 ? bits & 1 : bits >> (i - 1) & 1);
  places.prompt = places.decode;
  for (size_t i = 0; i < g.ops.size(); ++i)
    if (streamed_prompt && !std::holds_alternative<AttentionOp>(g.ops[i])) places.prompt.op_site[i] = accelerator_site;
  return places;
}

double best_of_all(const Graph& g, const Machine& machine, const PlanRequest& r) {
  double best = 1e30;
  for (const uint64_t tile : {256 * KiB, 64 * MiB}) {
    const plan::WeightMap weights = plan::cut(g, tile);
    const uint64_t largest = plan::largest_block(weights);
    for (const uint64_t ahead : {largest, 4 * largest})
      for (uint32_t bits = 1; bits < 1u << (g.ops.size() - 1); ++bits)
        for (const bool streamed : {false, true}) {
          const auto p = plan::arrange(g, machine, r, weights, places_of(g, bits, streamed),
                                       {r.step_tokens, ahead, plan::host_ahead(r.ram_budget)});
          if (p.ok()) best = std::min(best, seconds(g, machine, r, *p));
        }
  }
  return best;
}

// --- splits

int n_splits(const Plan& p) {
  return static_cast<int>(std::count_if(p.numerics.decode.splits.begin(), p.numerics.decode.splits.end(),
                                        [](const plan::Split& split) { return split.row != 0; }));
}

TEST_CASE("hybrid planner: an FFN is split where that pays, and is better than whole ones" *
          doctest::test_suite("exactness")) {
  TinyOptions o = small(2);
  o.ffn = 8192;
  const TinyModel model = make_tiny(o);
  const Graph& g = model.graph;
  // A CPU and a link of the same speed, a third of the weights in VRAM, and hand-overs that cost next to nothing.
  const Machine machine = machine_of(10, 100, 10, 0.1);
  PlanRequest r = request_of(18 * MiB);
  r.step_tokens = 64;
  const auto p = make_plan(g, machine, r);
  REQUIRE_MESSAGE(p.ok(), p.status().message());
  check_plan(g, r, *p);
  CHECK(n_splits(*p) > 0);
  CHECK(seconds(g, machine, r, *p) < 0.97 * best_of_all(g, machine, r));

  SUBCASE("not where hand-overs take longer than what would be gained") {
    const auto slow = make_plan(g, machine_of(10, 100, 10, 2000), r);
    REQUIRE(slow.ok());
    CHECK(n_splits(*slow) == 0);
  }
  SUBCASE("not where all fits the accelerator") {
    const auto all = make_plan(g, machine, request_of(256 * MiB));
    REQUIRE(all.ok());
    CHECK(n_splits(*all) == 0);
  }
  SUBCASE("not where the FFN was placed by hand") {
    r.pinned.assign(g.ops.size(), plan::any_site);
    for (size_t i = 0; i < g.ops.size(); ++i)
      if (std::holds_alternative<FfnOp>(g.ops[i])) r.pinned[i] = host_site;
    const auto pinned = make_plan(g, machine, r);
    REQUIRE_MESSAGE(pinned.ok(), pinned.status().message());
    CHECK(n_splits(*pinned) == 0);
  }
}

TEST_CASE("hybrid planner: within 5 % of the best of all placements" * doctest::test_suite("exactness")) {
  Random random(23);
  int judged = 0;
  for (int i = 0; i < 8; ++i) {
    TinyOptions o = small(2);
    o.ffn = 256 << random.upto(4);
    o.n_vocab = 256 << random.upto(4);
    const TinyModel model = make_tiny(o);
    const Machine machine = random_machine(random);
    PlanRequest r = request_of(2 * MiB + random.upto(14 * MiB));
    r.step_tokens = 64;
    const auto p = make_plan(model.graph, machine, r);
    if (!p.ok()) continue;
    PlanRequest alone = r;
    alone.accelerators.clear();
    const auto cpu = make_plan(model.graph, machine, alone);
    double best = best_of_all(model.graph, machine, r);
    if (cpu.ok()) best = std::min(best, seconds(model.graph, machine, alone, *cpu));
    CAPTURE(i);
    CHECK(seconds(model.graph, machine, r, *p) <= 1.05 * best);
    ++judged;
  }
  CHECK(judged >= 6);
}

TEST_SUITE_END();

}  // namespace
}  // namespace sluice::testing
