// A Trace as a file for chrome://tracing and ui.perfetto.dev: its lanes (core/trace.h), and in "otherData" where the
// time went (engine/stalls.h), in seconds. Format: "Trace Event Format", Google, complete events ("ph":"X").
#pragma once

#include <string>

#include "core/trace.h"
#include "sluice/status.h"

namespace sluice::engine {

inline constexpr size_t trace_spans = 1 << 18;  // kept at most; later ones are counted as dropped

// Nothing may record any more.
Status write_trace_file(const Trace& trace, const std::string& path);

}  // namespace sluice::engine
