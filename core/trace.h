// Trace: what ran when, on which lane, with how many bytes and operations.
//
// Devices, stores and the executor record spans; the engine writes them as a Chrome/Perfetto file and
// adds them up against the measured rooflines. Recording allocates nothing: a bounded buffer is made at
// the start, and spans beyond it are counted as dropped.
// Threads: record() may be called from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

namespace sluice {

uint64_t now_ns();  // monotonic clock

struct TraceSpan {
  const char* lane = "";  // "cpu 0", "disk": a string literal or one that outlives the trace
  const char* name = "";  // likewise
  uint64_t start_ns = 0, end_ns = 0;
  uint64_t bytes = 0, flops = 0;
};

class Trace {
 public:
  explicit Trace(size_t max_spans) : spans_(max_spans) {}

  void record(const TraceSpan& span) {
    const size_t i = next_.fetch_add(1, std::memory_order_relaxed);
    if (i < spans_.size()) spans_[i] = span;
  }

  // Only while nothing is recording.
  size_t size() const { return next_.load() < spans_.size() ? next_.load() : spans_.size(); }
  size_t dropped() const { return next_.load() - size(); }
  const TraceSpan& operator[](size_t i) const { return spans_[i]; }
  uint64_t bytes() const { return spans_.size() * sizeof(TraceSpan); }

 private:
  std::atomic<size_t> next_{0};
  std::vector<TraceSpan> spans_;
};

}  // namespace sluice
