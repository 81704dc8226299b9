// What the executor does for as long as a Span lives: a span of the trace and a range of the profiler, where there
// are such.
#pragma once

#include "core/ranges.h"
#include "core/trace.h"

namespace sluice::plan {

class Span {
 public:
  struct Names {
    const char* lane = "";
    const char* name = "";   // in the trace; lane and name outlive it
    const char* range = "";  // of the profiler
  };
  Span(Trace* trace, Ranges* ranges, const Names& names)
      : trace_(trace), ranges_(ranges), names_(names), start_(trace != nullptr ? now_ns() : 0) {
    if (ranges_ != nullptr) ranges_->begin(names.range);
  }
  ~Span() {
    if (ranges_ != nullptr) ranges_->end();
    if (trace_ != nullptr) trace_->record({names_.lane, names_.name, start_, now_ns(), 0, 0});
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  Trace* const trace_;
  Ranges* const ranges_;
  const Names names_;
  const uint64_t start_;
};

}  // namespace sluice::plan
