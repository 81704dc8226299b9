// Where the time of a traced run went: how long each lane was busy, and why no kernel was running when none was.
#pragma once

#include <string_view>

#include "core/trace.h"
#include "sluice/report.h"

namespace sluice::engine {

// From the trace's first span to the end of its last step; to its last span where it has no steps. What each instant
// is charged to is said at PeriodReport. O(n log n) for n spans, with 48 bytes for each.
// Threads: any, while others record.
StallReport find_stalls(const Trace& trace);

// A lane over all periods: bytes while it was busy; 0 where it never was.
double lane_gb_s(const StallReport& report, std::string_view lane);

}  // namespace sluice::engine
