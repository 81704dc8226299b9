// Cost model: how long a step takes on a Machine under a Plan, from the bytes and operations of its
// kernels and the measured rates; see docs/architecture.md for the floor times.
#pragma once

#include "offload/plan/plan.h"

namespace sluice::plan {

struct StepCost {
  double compute_s = 0;  // kernels, one behind the other
  double disk_s = 0;     // streamed blocks and spilled pages at the disk's rate
  // How much longer each takes while the other runs, at least 1.
  double compute_slowdown = 1, disk_slowdown = 1;
  double seconds() const;  // of both, run at once
};

// A step of n_tokens of one sequence at a depth of `depth` tokens already held.
StepCost step_cost(const Graph& graph, const Machine& machine, const Plan& plan, uint32_t n_tokens, uint32_t depth);

// Decode at half the context, prefill of a prompt of up to 512 tokens.
Prediction predict(const Graph& graph, const Machine& machine, const Plan& plan);

}  // namespace sluice::plan
