// A plan that runs, under other budgets: they are never exceeded, the least that works is named, and nothing changes
// that decides bits or holds what was computed.
#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "core/bytes.h"
#include "offload/plan/cost_model.h"
#include "offload/plan/planner.h"
#include "offload/plan/planner_sites.h"
#include "tests/support/gpu_machine.h"
#include "tests/support/tiny_graph.h"

namespace sluice::testing {
namespace {

using plan::BlockRole;
using plan::Holding;
using plan::Plan;
using plan::PlanRequest;
using plan::replan;

struct Random {
  std::mt19937_64 engine;
  explicit Random(uint64_t seed) : engine(seed) {}
  uint64_t upto(uint64_t n) { return engine() % n; }
};

TinyOptions model(uint32_t experts, bool tied) {
  TinyOptions o;
  o.n_layers = 5;
  o.hidden = 256;
  o.ffn = 1024;
  o.head_dim = 64;
  o.n_vocab = 512;
  o.experts = experts;
  o.tied = tied;
  return o;
}

Graph graph_of(const TinyOptions& o) { return make_tiny(o).graph; }

PlanRequest request_of(uint64_t ram, uint32_t sequences = 1) {
  PlanRequest r;
  r.ram_budget = ram;
  r.context = 512;
  r.page_tokens = 16;
  r.sequences = sequences;
  r.spill_limit = UINT64_MAX;
  r.fixed = {{"tables", 12'345}};
  return r;
}

PlanRequest with_gpu(PlanRequest r, uint64_t vram) {
  r.accelerators = {{"gpu 0", vram, 64 * KiB, {{"context", 100'000}}, true}};
  return r;
}

Machine machine() { return gpu_machine(20, 400, 10, 5); }

uint64_t held(const Holding& site) {
  uint64_t sum = 0;
  for (const auto& item : site.memory) sum += item.bytes;
  return sum;
}

bool same_cut(const plan::WeightMap& a, const plan::WeightMap& b) {
  if (a.blocks.size() != b.blocks.size() || a.tiles.size() != b.tiles.size()) return false;
  for (size_t i = 0; i < a.blocks.size(); ++i)
    if (a.blocks[i].role != b.blocks[i].role || a.blocks[i].slot_bytes != b.blocks[i].slot_bytes) return false;
  for (size_t i = 0; i < a.tiles.size(); ++i)
    if (!std::equal(a.tiles[i].begin(), a.tiles[i].end(), b.tiles[i].begin(), b.tiles[i].end(),
                    [](const auto& x, const auto& y) { return x.block == y.block && x.row_begin == y.row_begin; }))
      return false;
  return true;
}

// What sessions and their results stand on.
void check_lasting(const Graph& g, const Plan& now, const Plan& next) {
  CHECK(next.numerics.hash() == now.numerics.hash());
  CHECK(next.numerics.decode == now.numerics.decode);
  CHECK(next.numerics.prompt == now.numerics.prompt);
  CHECK(next.numerics.kv_site == now.numerics.kv_site);
  CHECK(next.numerics.page_tokens == now.numerics.page_tokens);
  CHECK(next.numerics.near_pages == now.numerics.near_pages);
  CHECK(next.workspace.tokens == now.workspace.tokens);
  CHECK(next.context == now.context);
  CHECK(same_cut(next.movement.weights, now.movement.weights));
  CHECK(next.movement.page_slot_bytes == now.movement.page_slot_bytes);
  CHECK(next.movement.spill_bytes == now.movement.spill_bytes);
  CHECK(next.movement.small_step == now.movement.small_step);
  CHECK(plan::table_bytes(g, next) == plan::table_bytes(g, now));
  REQUIRE(next.movement.sites.size() == now.movement.sites.size());
  for (size_t site = 0; site < now.movement.sites.size(); ++site) {
    const Holding &a = now.movement.sites[site], &b = next.movement.sites[site];
    CHECK(a.kv_pages == b.kv_pages);
    CHECK(a.kv_kept_pages == b.kv_kept_pages);
    CHECK(a.kv_group_pages == b.kv_group_pages);
    CHECK(a.scratch_bytes == b.scratch_bytes);
    CHECK(plan::workspace_bytes(g, next, static_cast<uint8_t>(site)) ==
          plan::workspace_bytes(g, now, static_cast<uint8_t>(site)));
  }
}

void check_holding(const Graph& g, const Plan& p, uint8_t site, uint64_t budget) {
  const Holding& h = p.movement.sites[site];
  CHECK(h.budget == budget);
  CHECK(held(h) <= budget);
  CHECK(h.weight_arena_bytes() % io_unit == 0);
  uint64_t resident = 0;
  for (size_t i = 0; i < h.resident.size(); ++i)
    if (h.resident[i]) resident += p.movement.weights.blocks[i].slot_bytes;
  CHECK(resident == h.resident_bytes);
  uint64_t lent = 0;
  for (size_t i = 0; i < h.lent.size(); ++i) lent += h.lent[i] ? p.movement.weights.blocks[i].slot_bytes : 0;
  CHECK(lent <= plan::lent_bytes(g, p, site));
  const uint64_t largest = plan::largest_block(p.movement.weights);
  const bool streams = !plan::streamed_blocks(g, p, false, site).empty();
  if (streams) CHECK(h.staging_bytes >= 3 * largest);
  if (streams) CHECK(h.ahead_bytes + 2 * largest <= h.staging_bytes);
}

// The bytes that an over_budget names behind a flag.
uint64_t named(const Status& status, const std::string& flag) {
  const size_t at = status.message().rfind(flag + " ");
  return std::stoull(status.message().substr(at + flag.size() + 1)) * MiB;
}

// Budgets of all sizes one after the other, each from the plan before it.
void walk(const Graph& g, const Machine& m, PlanRequest r, const Plan& first, int steps, Random& random) {
  Plan now = first;
  uint64_t all = 0;
  for (const auto& b : now.movement.weights.blocks) all += b.slot_bytes;
  const bool gpu = now.movement.sites.size() == 2;
  int refused = 0, fitted = 0;
  for (int i = 0; i < steps; ++i) {
    const auto around = [&](const Holding& h) {
      return held(h) - h.resident_bytes - h.staging_bytes + random.upto(all + all / 4);
    };
    r.ram_budget = i % 7 == 0 ? random.upto(first.host().budget) : around(first.host());
    if (gpu) r.accelerators.front().budget = around(first.movement.sites[1]);
    auto next = replan(g, m, r, now);
    if (next.ok()) {
      ++fitted;
      check_lasting(g, first, *next);
      check_holding(g, *next, plan::host_site, r.ram_budget);
      if (gpu) check_holding(g, *next, plan::accelerator_site, r.accelerators.front().budget);
      CHECK(next->prediction.decode_tok_s > 0);
      now = std::move(*next);
      continue;
    }
    ++refused;
    REQUIRE_MESSAGE(next.status().code() == Code::over_budget, next.status().message());
    const bool vram = next.status().message().find("works is --vram") != std::string::npos;
    uint64_t& budget = vram ? r.accelerators.front().budget : r.ram_budget;
    budget = named(next.status(), vram ? "--vram" : "--ram");
    const auto least = replan(g, m, r, now);
    if (!least.ok() && vram) {  // the other one is too small as well
      CHECK(least.status().message().find("works is --ram") != std::string::npos);
    } else {
      CHECK_MESSAGE(least.ok(), least.status().message());
    }
    budget -= MiB;
    CHECK(!replan(g, m, r, now).ok());
  }
  CHECK(fitted > 0);
  CHECK(refused > 0);
}

TEST_SUITE_BEGIN("one thread");

TEST_CASE("replan: a plan for the host keeps what must stay under any budget, and names the least") {
  Random random(3);
  for (const uint32_t experts : {0u, 4u}) {
    for (const bool tied : {false, true}) {
      const Graph g = graph_of(model(experts, tied));
      for (const uint64_t ram : {GiB, 12 * MiB, 9 * MiB}) {
        const PlanRequest r = request_of(ram, 2);
        const auto plan = plan::make_plan(g, machine(), r);
        if (plan.ok()) walk(g, machine(), r, *plan, 80, random);
      }
    }
  }
}

TEST_CASE("replan: with an accelerator both budgets hold, and whatever is short is named") {
  Random random(4);
  const Graph g = graph_of(model(0, false));
  int hybrids = 0;
  for (const uint64_t vram : {6 * MiB, 9 * MiB, 14 * MiB, 64 * MiB}) {
    for (const uint64_t ram : {16 * MiB, 32 * MiB, 64 * MiB}) {
      const PlanRequest r = with_gpu(request_of(ram), vram);
      const auto plan = plan::make_plan(g, machine(), r);
      if (!plan.ok() || plan->movement.sites.size() == 1) continue;
      ++hybrids;
      walk(g, machine(), r, *plan, 40, random);
    }
  }
  CHECK(hybrids > 4);
}

TEST_CASE("replan: under the budgets that it was made for a plan is no slower than it was") {
  const Graph g = graph_of(model(0, false));
  for (const uint64_t vram : {7 * MiB, 9 * MiB, 14 * MiB, 64 * MiB}) {
    const PlanRequest r = with_gpu(request_of(64 * MiB), vram);
    const auto plan = plan::make_plan(g, machine(), r);
    if (!plan.ok() || plan->movement.sites.size() == 1) continue;
    const auto again = replan(g, machine(), r, *plan);
    REQUIRE(again.ok());
    const auto seconds = [&](const Plan& p) { return plan::request_seconds(g, machine(), p, r.depth, r.prompt); };
    CHECK(seconds(*again) <= seconds(*plan) * (1 + 1e-9));
  }
}

TEST_CASE("replan: with plenty everything stays, whatever was before") {
  const Graph g = graph_of(model(0, false));
  for (const bool gpu : {false, true}) {
    PlanRequest r = request_of(gpu ? 64 * MiB : 20 * MiB);
    if (gpu) r = with_gpu(r, 9 * MiB);
    const auto plan = plan::make_plan(g, machine(), r);
    REQUIRE_MESSAGE(plan.ok(), plan.status().message());
    r.ram_budget = GiB;
    if (gpu) r.accelerators.front().budget = GiB;
    const auto next = replan(g, machine(), r, *plan);
    REQUIRE(next.ok());
    CHECK(plan::traffic(g, *next, false).disk_bytes == 0);
    CHECK(plan::traffic(g, *next, true).disk_bytes == 0);
    for (uint8_t site = 0; site < next->movement.sites.size(); ++site)
      CHECK(plan::streamed_blocks(g, *next, false, site).empty());
  }
}

TEST_CASE("replan: the least budgets work, and a page less of either does not") {
  Random random(5);
  const Graph g = graph_of(model(0, false));
  for (const bool gpu : {false, true}) {
    PlanRequest r = request_of(64 * MiB);
    if (gpu) r = with_gpu(r, 10 * MiB);
    const auto plan = plan::make_plan(g, machine(), r);
    REQUIRE(plan.ok());
    REQUIRE(plan->movement.sites.size() == (gpu ? 2 : 1));
    const auto least = plan::replan_sparingly(g, machine(), r, *plan);
    REQUIRE_MESSAGE(least.ok(), least.status().message());
    check_lasting(g, *plan, *least);
    for (size_t site = 0; site < least->movement.sites.size(); ++site) {
      PlanRequest less = r;
      less.ram_budget = least->host().budget;
      if (gpu) less.accelerators.front().budget = least->movement.sites[1].budget;
      CHECK(replan(g, machine(), less, *plan).ok());
      (site == 0 ? less.ram_budget : less.accelerators.front().budget) -= 1;
      CHECK(!replan(g, machine(), less, *plan).ok());
    }
  }
}

TEST_CASE("replan: what a user has put on an accelerator must stay there") {
  const Graph g = graph_of(model(0, false));
  PlanRequest r = with_gpu(request_of(64 * MiB), 64 * MiB);
  r.pinned.assign(g.ops.size(), plan::any_site);
  std::vector<TensorId> theirs;
  for (size_t i = 0; i < g.ops.size(); ++i)
    if (std::holds_alternative<FfnOp>(g.ops[i]) && i < g.ops.size() / 2) {
      r.pinned[i] = plan::accelerator_site;
      for (const TensorId id : matrices(g.ops[i])) theirs.push_back(id);
    }
  const auto plan = plan::make_plan(g, machine(), r);
  REQUIRE(plan.ok());
  const auto least = plan::replan_sparingly(g, machine(), r, *plan);
  REQUIRE(least.ok());
  for (const TensorId id : theirs)
    for (const plan::Tile& tile : least->movement.weights.of(id))
      CHECK(least->movement.sites[plan::accelerator_site].resident[tile.block]);
}

TEST_SUITE_END();

}  // namespace
}  // namespace sluice::testing
