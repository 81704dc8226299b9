// The commands. Each prints its results to standard output and returns an exit code, or the error that
// main prints; warnings, progress and notes go to stderr.
#pragma once

#include "apps/options.h"
#include "sluice/status.h"

namespace sluice::apps {

Result<int> run(const RunOptions& options);
Result<int> chat(const ChatOptions& options);
Result<int> plan(const PlanOptions& options);
Result<int> tokenize(const TokenizeOptions& options);
Result<int> perplexity(const PerplexityOptions& options);
Result<int> inspect(const InspectOptions& options);
Result<int> bench(const BenchOptions& options);
Result<int> doctor(const DoctorOptions& options);

}  // namespace sluice::apps
