// Plans for the host alone.
#pragma once

#include "offload/plan/planner.h"

namespace sluice::plan {

// The request's accelerators are not looked at. over_budget, with the budget that works in `least`, where it is too
// small.
Result<Plan> plan_for_host(const Graph& graph, const Machine& machine, const PlanRequest& request, uint64_t& least);

// replan() of such a plan.
Result<Plan> replan_for_host(const Graph& graph, const Machine& machine, const PlanRequest& request, const Plan& now,
                             uint64_t& least);

}  // namespace sluice::plan
