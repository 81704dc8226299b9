// A plan with an accelerator, made by hand from a plan for the CPU: tests say which op goes where.
#pragma once

#include <functional>
#include <string>

#include "offload/plan/plan.h"

namespace sluice::testing {

struct PlacementOptions {
  std::string device = "sim";
  // Whether an op is computed there; attention as in decoding.
  std::function<bool(size_t op, bool prompt)> placed;
  // Of an FFN: the row from which the other site computes gate and up, or the nearest at which tiles begin; 0, or
  // without this: whole.
  std::function<uint32_t(size_t op, bool prompt)> split;
  double resident = 1;                    // share of its matrices that stays there
  uint32_t near_pages = plan::all_pages;  // of a sequence in layers that it attends to; those behind with the host
  uint64_t scratch_bytes = 0;
  // Every other one of those that stay is lent to steps of more tokens, as far as these need memory; 0: none is.
  uint32_t small_step = 0;
};

// Staging is the least that works, so that everything is under pressure; the KV of its layers stays there.
void place(const Graph& graph, plan::Plan& plan, const PlacementOptions& options);

}  // namespace sluice::testing
