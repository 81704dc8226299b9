// A plan that runs, under other budgets.
#include <algorithm>
#include <optional>

#include "core/error.h"
#include "offload/plan/cost_model.h"
#include "offload/plan/planner_host.h"
#include "offload/plan/planner_sites.h"

namespace sluice::plan {
namespace {

// How far an accelerator's stream may run ahead: as far as now, what a search would try, and not at all.
std::vector<uint64_t> distances(const PlanRequest& r, const Plan& now) {
  const uint64_t budget = r.accelerators.front().budget, largest = largest_block(now.movement.weights);
  std::vector<uint64_t> out = {now.movement.sites[accelerator_site].ahead_bytes};
  for (uint64_t ahead = std::max(largest, std::min(64 * MiB, align_down(budget / 64, io_unit))); ahead <= budget / 6;
       ahead *= 2)
    out.push_back(ahead);
  out.push_back(0);
  return out;
}

// The fastest of all distances; what falls short with the last one works with none.
Result<Plan> replan_hybrid(const Graph& graph, const Machine& machine, const PlanRequest& r, const Plan& now,
                           Shortage& shortage) {
  std::optional<Plan> best;
  double best_seconds = 0;
  Status why;
  for (const uint64_t ahead : distances(r, now)) {
    auto plan = rearrange(graph, r, now, {now.workspace.tokens, ahead, host_ahead(r.ram_budget)}, &shortage);
    why = plan.status();
    if (!plan.ok()) continue;
    const double seconds = request_seconds(graph, machine, *plan, r.depth, r.prompt);
    if (best && best_seconds <= seconds) continue;
    best = std::move(*plan);
    best_seconds = seconds;
  }
  if (!best) return why;
  best->prediction = predict(graph, machine, *best, r.depth);
  return std::move(*best);
}

}  // namespace

Result<Plan> replan(const Graph& graph, const Machine& machine, const PlanRequest& request, const Plan& now,
                    Shortage* shortage) {
  Shortage unused;
  Shortage& missing = shortage != nullptr ? *shortage : unused;
  missing = {};
  if (now.movement.sites.size() == 1) return replan_for_host(graph, machine, request, now, missing.least);
  if (request.accelerators.empty())
    return error(Code::invalid_argument, "{}: the plan has an accelerator, the request has none", graph.name);
  return replan_hybrid(graph, machine, request, now, missing);
}

// What the host has to feed depends on what the accelerator keeps, so that its least comes second.
Result<Plan> replan_sparingly(const Graph& graph, const Machine& machine, PlanRequest request, const Plan& now) {
  request.ram_budget = 0;
  for (AcceleratorRequest& accelerator : request.accelerators) accelerator.budget = 0;
  constexpr int rounds = 4;
  for (int round = 0;; ++round) {
    Shortage shortage;
    auto plan = replan(graph, machine, request, now, &shortage);
    if (plan.ok() || plan.status().code() != Code::over_budget || round == rounds) return plan;
    (shortage.vram ? request.accelerators.front().budget : request.ram_budget) = shortage.least;
  }
}

}  // namespace sluice::plan
