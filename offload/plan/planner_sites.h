// What each site's memory is given to, once it is decided which site computes what.
//
// In the order of need: what is fixed, workspace, vectors, KV, staging; what is left holds weights. Those that an
// accelerator computes with when it decodes stay there, spread evenly over the pass so that what streams comes at an
// even rate, and likewise those of them that are lent to the workspace of large steps; the host keeps what it computes
// with and what accelerators stream, and the rest passes from the disk.
#pragma once

#include "offload/plan/planner.h"

namespace sluice::plan {

// Sites of a plan with one accelerator: the host is 0, it is 1.
inline constexpr uint8_t accelerator_site = 1;

// Which site computes each op; kv_site follows from the AttentionOps, which are at the same site in both.
struct Places {
  Placement decode, prompt;
  uint32_t near_pages = all_pages;  // as in Numerics
  bool operator==(const Places&) const = default;
};

// How much memory goes into step size and run-ahead before any weight stays.
struct Reserve {
  uint32_t step_tokens = 512;
  uint64_t ahead_bytes = 64 * MiB;  // of the accelerator's stream
  uint64_t host_ahead_bytes = 0;    // of reads from disk
};
// Enough for several reads of the disk, but a small part of a small budget.
uint64_t host_ahead(uint64_t ram_budget);

// By layer, of the AttentionOps.
std::vector<uint8_t> kv_sites(const Graph& graph, const Placement& placement);

// That of `rows` which is nearest to `row`; 0 where there is none.
uint32_t nearest(const std::vector<uint32_t>& rows, uint32_t row);

// Puts the ops where the request wants them when decoding, whole.
void pin(const PlanRequest& request, Places& places);

// Movement::small_step for steps of so many tokens at most: most of the workspace is lent, and who verifies or answers
// many at once takes nothing back.
uint32_t small_step(uint32_t step_tokens);

// The least that a stream's staging works with, and what it should have (see weight_stream.h).
uint64_t least_staging(uint64_t largest_block);
uint64_t staging_for(uint64_t ahead_bytes, uint64_t largest_block);
// Slots for blocks that pass from the disk through the host to an accelerator.
uint64_t passing_bytes(uint64_t largest_block);
uint64_t largest_block(const WeightMap& weights);

// Pages of one layer and kind.
uint64_t page_slot_bytes(const Graph& graph, const PlanRequest& request);
uint32_t pages_per_sequence(const PlanRequest& request);

// Pages of the KV that the host holds: all, or as many as fit, the others on disk. It has those of `layers`, and of
// `other_layers` what is behind the near pages.
struct HostKv {
  uint64_t whole = 0, tails = 0, filling = 0, least = 0;
  const Holding* held = nullptr;  // whose pages they are, where they are there already
};
HostKv host_kv(const PlanRequest& request, uint32_t layers, uint32_t other_layers, uint32_t near_pages,
               uint32_t step_tokens);
// Those that `host`, which outlives the result, has: all of them stay as they are.
HostKv held_kv(const Holding& host);

// A plan without its movement's sites: what does not depend on where things are.
Plan plan_shell(const Graph& graph, const Machine& machine, const PlanRequest& request, uint32_t step_tokens);
// What stays of a plan when it is made anew for other budgets (replan).
Plan without_sites(const Plan& plan);

uint64_t total(const std::vector<NamedBytes>& items);

// Says where the budget of a site goes, behind what is `fixed`, once all else of the plan is decided.
void name_memory(const Graph& graph, const std::vector<NamedBytes>& fixed, uint8_t site, Plan& plan);

// KV that goes to disk needs the disk.
Status check_spill(const Plan& plan, const PlanRequest& request);

// Gives the host pages of `left` bytes for its KV: all where it fits; otherwise half of what is left, as a context
// fills slowly and weights are read by every token. What they take.
uint64_t give_kv(const HostKv& kv, const PlanRequest& request, uint64_t left, Movement& movement, Holding& host);

// The plan with everything but its prediction. `weights` are those of `graph`, cut; splits go to where tiles begin.
// over_budget names the flag and the
// least of it that works with these places, and so does `shortage` where it is given.
Result<Plan> arrange(const Graph& graph, const Machine& machine, const PlanRequest& request, const WeightMap& weights,
                     const Places& places, const Reserve& reserve, Shortage* shortage = nullptr);
// The same for the budgets of `request` with all else as in `now`, which has an accelerator.
Result<Plan> rearrange(const Graph& graph, const PlanRequest& request, const Plan& now, const Reserve& reserve,
                       Shortage* shortage = nullptr);

}  // namespace sluice::plan
