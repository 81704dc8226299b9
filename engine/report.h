// Plans and runs as the public reports of include/sluice/report.h.
#pragma once

#include "engine/runtime.h"
#include "sluice/report.h"

namespace sluice::engine {

PlanReport report_plan(const Blueprint& blueprint);
MemoryReport report_memory(const Runtime& runtime);
StallReport report_stalls(const Runtime& runtime);
std::vector<TierReport> report_tiers(const Runtime& runtime);

}  // namespace sluice::engine
