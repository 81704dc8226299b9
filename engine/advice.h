// What would make a plan faster: the same request planned again for a machine that has more of something. What was
// placed by hand stays there.
#pragma once

#include <vector>

#include "engine/runtime.h"
#include "sluice/report.h"

namespace sluice::engine {

// The best first; what would not help is left out.
std::vector<HelpReport> advise(const Blueprint& blueprint);

}  // namespace sluice::engine
