// Places that the user chose, in the spellings of other engines, as what the planner takes.
#pragma once

#include <vector>

#include "core/graph.h"
#include "sluice/options.h"

namespace sluice::engine {

// By op the site (plan::PlanRequest::pinned), or empty where the options choose nothing. What they say is kept exactly,
// or refused: an expression that matches no tensor, that divides the matrices of one op, or more layers than there are.
Result<std::vector<uint8_t>> pinned_ops(const EngineOptions& options, const Graph& graph);

}  // namespace sluice::engine
