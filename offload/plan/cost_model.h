// Cost model: how long a step takes on a Machine under a Plan, from the bytes and operations of its
// kernels and the measured rates; see docs/architecture.md for the floor times.
//
// The kernels of a pass and the hand-overs between sites follow one another, since each op reads what the one before
// it wrote; of an op that is split both sites' rows are computed at once. Beside them the link brings weights to the
// accelerator, running ahead by what its staging holds, and the disk reads what the host does not keep.
#pragma once

#include <span>

#include "offload/plan/plan.h"

namespace sluice::plan {

struct StepCost {
  double compute_s = 0;  // kernels of all sites, hand-overs and waits for the link, one behind the other
  double disk_s = 0;     // streamed blocks and spilled pages at the disk's rate
  // How much longer each takes while the other runs, at least 1.
  double compute_slowdown = 1, disk_slowdown = 1;
  // What compute_s is made of. Of kernels: the part that waits for memory, not arithmetic.
  double host_s = 0, device_s = 0, hand_over_s = 0, wait_s = 0;
  double host_memory_s = 0, device_memory_s = 0;
  double link_s = 0;       // the link is busy
  double seconds() const;  // of all, run at once
};

// A step of n_tokens of one sequence at a depth of `depth` tokens already held, of a prompt or of decoding; where that
// is not said, those of more than decode_tokens are of a prompt.
inline constexpr uint32_t decode_tokens = most_short_prompt;
StepCost step_cost(const Graph& graph, const Machine& machine, const Plan& plan, uint32_t n_tokens, uint32_t depth,
                   bool prompt);
StepCost step_cost(const Graph& graph, const Machine& machine, const Plan& plan, uint32_t n_tokens, uint32_t depth);

// Seconds that a prompt takes, in steps of what the plan's workspace holds.
double prompt_seconds(const Graph& graph, const Machine& machine, const Plan& plan, uint32_t n_tokens);

// Up to how many tokens a prompt is computed sooner as decoding is, of most_short_prompt at most.
uint32_t short_prompt(const Graph& graph, const Machine& machine, const Plan& plan);

// Decode at a depth (0: half the context, at most 256), prefill of a prompt of up to 512 tokens.
Prediction predict(const Graph& graph, const Machine& machine, const Plan& plan, uint32_t depth = 0);

// What plans are compared by: the seconds of a request such as people make. Prompts, with what they quote and what was
// said before, are much longer than answers: 4096 tokens and 128, each at most half of the context. The answer comes at
// a depth of `depth` (0: half the context). `prompt`: tokens of the prompts to come, where that is known, or 0.
struct Request {
  uint32_t prompt = 0, answer = 0, depth = 0;
};
Request typical_request(uint32_t context, uint32_t depth, uint32_t prompt);
double request_seconds(const Graph& graph, const Machine& machine, const Plan& plan, uint32_t depth, uint32_t prompt);

// --- parts, for those who weigh many placements

// An op of a pass where it is.
struct OpCost {
  uint8_t site = host_site;
  double kernels_s = 0;
  double memory_s = 0;     // of kernels_s: bound by memory
  double hand_over_s = 0;  // of what it reads from other sites, or gathers from them
  double link_bytes = 0;   // of its weights, that come from the host
  // Of kernels_s: products whose rows, or attention whose cells can be divided; and what each site does beside.
  double divisible_s = 0, beside_rows_s = 0;
  // Of an op that is split: rows at both sites at once, before kernels_s.
  double host_rows_s = 0, device_rows_s = 0;
};

// An op at the site of `home`, which has `share` of the rows that can be divided; the site of `other` has the rest.
OpCost split_cost(const OpCost& home, const OpCost& other, double share);

// An op as it is placed; `at`: by site, by op what op_costs() says; near_share: of the cells that accelerators attend
// to when decoding (Numerics::near_share), 1 for prompts.
OpCost placed_cost(const Graph& graph, const Placement& placement, size_t op, std::span<const std::vector<OpCost>> at,
                   double near_share);

// Seconds of the kernels of each op at a site; `plan` gives numerics and weights.
std::vector<OpCost> op_costs(const Graph& graph, const Machine& machine, const Plan& plan, uint8_t site,
                             uint32_t n_tokens, uint32_t depth);

// The link from the host to the accelerator.
struct LinkLane {
  double bytes_s = 0;                       // alone
  double beside = 1, host_beside = 1;       // parts of their rates that it and the host's kernels keep together
  double ahead_bytes = 0;                   // it may be ahead of use
  double latency_s = 0, call_s = 0;         // of a hand-over
  double up_bytes_s = 0, down_bytes_s = 0;  // of values
};
LinkLane link_lane(const Machine& machine, const std::string& device);

void add_hand_overs(const Graph& graph, const Placement& placement, const LinkLane& lane, uint32_t n_tokens, bool far,
                    std::vector<OpCost>& ops);

// What prompts wait for where they attend to KV that lies with the host: new keys and values go there, and all that is
// there comes through the link, once in a step.
void add_staged(const Graph& graph, const Plan& plan, const Placement& placement, const LinkLane& lane,
                uint64_t near_tokens, uint32_t n_tokens, uint32_t depth, std::vector<OpCost>& ops);

// A pass over the ops after another one like it.
StepCost pass_cost(std::span<const OpCost> ops, const LinkLane& lane);

// What it takes to bring back what was lent (Movement::small_step), `from_disk` of it from there.
double return_seconds(const Machine& machine, const LinkLane& lane, double bytes, double from_disk);

// Beside all else the disk brings so many bytes.
void add_disk(const Machine& machine, double bytes, StepCost& cost);

}  // namespace sluice::plan
