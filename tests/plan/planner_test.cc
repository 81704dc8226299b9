// The planner: budgets are never exceeded, the least that works is named exactly, and what it predicts
// follows the machine.
#include "offload/plan/planner.h"

#include <doctest/doctest.h>

#include <random>
#include <set>

#include "core/bytes.h"
#include "tests/plan/rig.h"

namespace sluice::testing {
namespace {

using plan::BlockRole;
using plan::make_plan;
using plan::Plan;
using plan::PlanRequest;

PlanRequest request_of(uint64_t ram, uint32_t context = 96) {
  PlanRequest r;
  r.ram_budget = ram;
  r.context = context;
  r.page_tokens = 8;
  r.spill_limit = UINT64_MAX;
  r.fixed = {{"tables", 12'345}};
  return r;
}

uint64_t held(const Plan& p) {
  uint64_t sum = 0;
  for (const auto& item : p.host().memory) sum += item.bytes;
  return sum;
}

// Everything that a plan promises whatever the budget was.
void check_plan(const Graph& g, const PlanRequest& r, const Plan& p) {
  CHECK(held(p) <= r.ram_budget);
  CHECK(p.host().budget == r.ram_budget);
  CHECK(p.host().weight_arena_bytes() % io_unit == 0);
  CHECK(p.kv_arena_bytes(plan::host_site) % io_unit == 0);
  REQUIRE(p.host().resident.size() == p.movement.weights.blocks.size());
  uint64_t resident = 0, streamed = 0, largest = 0;
  bool all = true;
  for (size_t i = 0; i < p.host().resident.size(); ++i) {
    const plan::WeightBlock& b = p.movement.weights.blocks[i];
    if (b.role == BlockRole::vector) CHECK(p.host().resident[i]);
    if (p.host().resident[i]) resident += b.slot_bytes;
    if (b.role != BlockRole::matrix && b.role != BlockRole::expert) continue;
    largest = std::max(largest, b.slot_bytes);
    all = all && p.host().resident[i];
    if (!p.host().resident[i] && b.role == BlockRole::matrix) streamed += b.bytes;
  }
  CHECK(resident == p.host().resident_bytes);
  CHECK(plan::traffic(g, p, false).disk_bytes == streamed);
  if (!all) CHECK(p.host().staging_bytes >= 3 * largest);
  if (!all) CHECK(p.host().ahead_bytes + 2 * largest <= p.host().staging_bytes);
  const uint32_t whole = 2 * g.n_layers * r.sequences * p.movement.pages_per_sequence;
  CHECK(p.movement.pages_per_sequence * r.page_tokens >= r.context);
  CHECK(p.host().kv_pages <= whole);
  CHECK(p.host().kv_kept_pages <= p.host().kv_pages);
  CHECK((p.host().kv_group_pages == 0) == (p.host().kv_pages == whole));
  CHECK((p.movement.spill_bytes == 0) == (p.host().kv_group_pages == 0));
  CHECK(p.workspace.tokens >= 1);
  CHECK(p.workspace.tokens <= std::max(r.context, r.step_tokens));
  CHECK(p.prediction.decode_tok_s > 0);
  CHECK(p.prediction.prefill_tok_s > 0);
  CHECK(p.numerics.decode.op_site.size() == g.ops.size());
}

TEST_SUITE_BEGIN("one thread");

TEST_CASE("planner: no budget from nothing to plenty is exceeded, and more never keeps less") {
  for (const uint32_t experts : {0u, 4u}) {
    TinyOptions options;
    options.hidden = 128;
    options.ffn = 512;
    options.experts = experts;
    options.tied = experts == 0;
    const TinyModel model = make_tiny(options);
    int refused = 0, streamed = 0, resident = 0;
    for (uint64_t ram = 1000; ram < 64 * MiB; ram += ram / 17 + 1) {
      const PlanRequest r = request_of(ram);
      const auto p = make_plan(model.graph, test_machine(), r);
      if (!p.ok()) {
        CHECK(p.status().code() == Code::over_budget);
        ++refused;
        CHECK(streamed + resident == 0);  // once it fits it fits
        continue;
      }
      CAPTURE(ram);
      check_plan(model.graph, r, *p);
      plan::traffic(model.graph, *p, false).disk_bytes > 0 ? ++streamed : ++resident;
    }
    CHECK(refused > 0);
    CHECK(resident > 0);
  }
}

TEST_CASE("planner: random requests") {
  std::mt19937_64 random(3);
  const auto upto = [&](uint64_t n) { return static_cast<uint32_t>(random() % n); };
  for (int i = 0; i < 300; ++i) {
    TinyOptions options;
    options.n_layers = 1 + upto(4);
    options.experts = upto(3) == 0 ? 4 : 0;
    options.tied = upto(2) == 0;
    options.gap = upto(2) == 0 ? 8192 : 0;
    const TinyModel model = make_tiny(options);
    PlanRequest r = request_of(uint64_t{1} << (14 + upto(12)), 1 + upto(3000));
    r.ram_budget += upto(100'000);
    r.sequences = 1 + upto(5);
    r.logit_rows = 1 + upto(40);
    r.step_tokens = upto(3) == 0 ? 1 + upto(100) : 0;
    r.taps = upto(3);
    r.compute = upto(2) ? Compute::fast : Compute::f32;
    const auto p = make_plan(model.graph, test_machine(), r);
    if (p.ok()) check_plan(model.graph, r, *p);
    else CHECK(p.status().code() == Code::over_budget);
  }
}

uint64_t named_least(const Status& status) {
  const std::string& text = status.message();
  const size_t at = text.find("works is --ram ");
  REQUIRE_MESSAGE(at != std::string::npos, text);
  return std::stoull(text.substr(at + 15)) * MiB;
}

TEST_CASE("planner: the least budget it names works, and one MiB less does not" * doctest::test_suite("exactness")) {
  for (const uint32_t context : {32u, 2048u, 100'000u}) {
    for (const uint32_t hidden : {64u, 512u}) {
      TinyOptions options;
      options.hidden = hidden;
      options.ffn = 4 * hidden;
      options.n_vocab = 4001;
      const TinyModel model = make_tiny(options);
      const auto refused = make_plan(model.graph, test_machine(), request_of(1, context));
      REQUIRE(!refused.ok());
      CHECK(refused.status().code() == Code::over_budget);
      const uint64_t least = named_least(refused.status());
      const auto works = make_plan(model.graph, test_machine(), request_of(least, context));
      REQUIRE_MESSAGE(works.ok(), works.status().message());
      check_plan(model.graph, request_of(least, context), *works);
      const auto less = make_plan(model.graph, test_machine(), request_of(least - MiB, context));
      REQUIRE(!less.ok());
      CHECK(named_least(less.status()) == least);
    }
  }
}

TEST_CASE("planner: KV that may not go to disk is refused, and says how much it would take") {
  const TinyModel model = make_tiny({});
  PlanRequest r = request_of(1, 100'000);
  r.ram_budget = named_least(make_plan(model.graph, test_machine(), r).status());
  REQUIRE(make_plan(model.graph, test_machine(), r).ok());
  r.spill_limit = 0;
  const auto refused = make_plan(model.graph, test_machine(), r);
  CHECK(refused.status().code() == Code::over_budget);
  CHECK(refused.status().message().find("--spill-dir") != std::string::npos);
  r.ram_budget = 4 * GiB;  // with all KV in memory the limit is of no matter
  CHECK(make_plan(model.graph, test_machine(), r).ok());
}

TEST_CASE("planner: what makes no sense is invalid, and sizes at the edge do not wrap") {
  const TinyModel model = make_tiny({});
  const auto code = [&](auto change) {
    PlanRequest r = request_of(GiB);
    change(r);
    return make_plan(model.graph, test_machine(), r).status().code();
  };
  CHECK(code([](PlanRequest& r) { r.context = 0; }) == Code::invalid_argument);
  CHECK(code([](PlanRequest& r) { r.sequences = 0; }) == Code::invalid_argument);
  CHECK(code([](PlanRequest& r) { r.logit_rows = 0; }) == Code::invalid_argument);
  CHECK(code([](PlanRequest& r) { r.page_tokens = 48; }) == Code::invalid_argument);
  CHECK(code([](PlanRequest& r) { r.context = UINT32_MAX; }) == Code::invalid_argument);
  CHECK(code([](PlanRequest& r) { r.sequences = 1025; }) == Code::invalid_argument);
  CHECK(code([](PlanRequest& r) { r.ram_budget = 0; }) == Code::over_budget);
  CHECK(code([](PlanRequest& r) { r.ram_budget = UINT64_MAX; }) == Code::ok);
  CHECK(code([](PlanRequest& r) { r.step_tokens = UINT32_MAX; }) == Code::over_budget);
  CHECK(code([](PlanRequest& r) { r.logit_rows = UINT32_MAX; }) == Code::over_budget);
}

TEST_CASE("planner: equal requests give equal plans; Numerics do not depend on the budget") {
  const TinyModel model = make_tiny({});
  std::set<std::string> hashes;
  for (const uint64_t ram : {8 * MiB, 64 * MiB, 512 * MiB}) {
    const auto a = make_plan(model.graph, test_machine(), request_of(ram));
    const auto b = make_plan(model.graph, test_machine(), request_of(ram));
    REQUIRE(a.ok());
    REQUIRE(b.ok());
    CHECK(a->host().resident == b->host().resident);
    CHECK(a->prediction.decode_tok_s == b->prediction.decode_tok_s);
    hashes.insert(a->numerics.hash());
  }
  CHECK(hashes.size() == 1);
  PlanRequest exact = request_of(64 * MiB);
  exact.compute = Compute::f32;
  hashes.insert(make_plan(model.graph, test_machine(), exact)->numerics.hash());
  CHECK(hashes.size() == 2);
}

TEST_CASE("cost model: a streamed plan is bound by the disk, and twice the disk is nearly twice as fast") {
  TinyOptions options;
  options.hidden = 512;
  options.ffn = 2048;
  const TinyModel model = make_tiny(options);
  Machine slow = test_machine(), fast = test_machine();
  for (auto* machine : {&slow, &fast})
    for (auto& tier : machine->tiers)
      if (tier.id == "disk") tier.read_gb_s = machine == &slow ? 0.01 : 0.02;
  for (auto* machine : {&slow, &fast})
    for (auto& link : machine->links)
      if (link.from == "disk") link.gb_s = machine == &slow ? 0.01 : 0.02;
  const uint64_t least = named_least(make_plan(model.graph, slow, request_of(1)).status());
  const auto a = make_plan(model.graph, slow, request_of(least)), b = make_plan(model.graph, fast, request_of(least));
  REQUIRE(a.ok());
  REQUIRE(b.ok());
  const uint64_t streamed = plan::traffic(model.graph, *a, false).disk_bytes;
  REQUIRE(streamed > 0);
  CHECK(a->prediction.bottleneck == "disk");
  const double floor_s = static_cast<double>(streamed) / 0.01e9;
  CHECK(1 / a->prediction.decode_tok_s >= floor_s * 0.99);
  CHECK(1 / a->prediction.decode_tok_s < floor_s * 1.5);
  CHECK(b->prediction.decode_tok_s > 1.5 * a->prediction.decode_tok_s);
  const auto all = make_plan(model.graph, slow, request_of(GiB));
  CHECK(all->prediction.bottleneck != "disk");
  CHECK(all->prediction.decode_tok_s > 2 * b->prediction.decode_tok_s);
}

TEST_SUITE_END();

}  // namespace
}  // namespace sluice::testing
