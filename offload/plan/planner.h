// The planner: a pure function from a Graph, a Machine and a budget to a Plan.
//
// No clock, lock or I/O: the same arguments give the same Plan.
#pragma once

#include "offload/plan/plan.h"

namespace sluice::plan {

// An accelerator that may be used: a device of the Machine, with links to the host.
struct AcceleratorRequest {
  std::string device;
  uint64_t budget = 0;            // of its memory: --vram
  uint64_t scratch_bytes = 0;     // that its kernels need
  std::vector<NamedBytes> fixed;  // what is held there already: its context
  bool wanted = false;            // somebody asked for this budget: one that is too small to be of use is an error
};

// In PlanRequest::pinned: the planner chooses.
inline constexpr uint8_t any_site = UINT8_MAX;

struct PlanRequest {
  std::vector<AcceleratorRequest> accelerators;  // empty: the CPU alone
  // By op, or empty: the site that it must have when decoding, and an accelerator keeps its weights; for AttentionOps,
  // and so for KV, in prompts too. Sites: 0 is the host, 1 the first accelerator.
  std::vector<uint8_t> pinned;
  uint64_t ram_budget = 0;        // everything below has to fit in it
  std::vector<NamedBytes> fixed;  // what the caller already holds: tokenizer, metadata, trace…
  uint32_t context = 0;           // tokens of one sequence
  uint32_t depth = 0;             // tokens held, for which decoding is planned; 0: half the context
  uint32_t prompt = 0;            // tokens of the prompts to come; 0: typical ones (cost_model.h)
  uint32_t sequences = 1;         // at once
  uint32_t step_tokens = 0;       // most tokens of one step; 0: the planner chooses
  uint32_t logit_rows = 1;        // most rows of logits of one step
  uint32_t taps = 0;
  Compute compute = Compute::fast;
  uint32_t page_tokens = 64;
  uint64_t spill_limit = 0;  // bytes that KV may take on disk; 0: KV must stay in memory
};

// With an accelerator: the plan whose typical request (cost_model.h) takes least time, of those on the CPU alone among
// them. More than one accelerator: the first is used. A graph that routes is planned for the CPU alone.
// over_budget names the flag of the budget that is too small, and the least that works for this request.
Result<Plan> make_plan(const Graph& graph, const Machine& machine, const PlanRequest& request);

// Which budget is too small, and the least of it that works.
struct Shortage {
  bool vram = false;
  uint64_t least = 0;
};

// `now`, a plan for this graph that runs, under the budgets of `request`. Numerics, workspace, KV and the cut of the
// weights stay as they are, so that what was computed remains valid and what follows has the same bits; planned anew is
// which weights stay at which site, staging, run-ahead, and what the budgets are given to. Of `request` count the
// budgets, fixed, pinned, depth and spill_limit. over_budget as in make_plan(), and in `shortage` where it is given.
Result<Plan> replan(const Graph& graph, const Machine& machine, const PlanRequest& request, const Plan& now,
                    Shortage* shortage = nullptr);

// The same with the least budgets that work.
Result<Plan> replan_sparingly(const Graph& graph, const Machine& machine, PlanRequest request, const Plan& now);

}  // namespace sluice::plan
