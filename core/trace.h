// Trace: what ran when, on which lane, with how many bytes and operations.
//
// Devices, stores and the executor record spans; the engine writes them as a Chrome/Perfetto file and
// adds them up against the measured rooflines. Recording allocates nothing: a bounded buffer is made at
// the start, and spans beyond it are counted as dropped.
//
// Lanes: "cpu" and "gpu N" for kernels, "gpu N h2d" and "gpu N d2h" for copies, "disk", "executor" for what the
// thread that drives a step enqueues, and "step" for steps as a whole: "prompt" or "decode".
// Threads: all of it from any thread, but for operator[].
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

namespace sluice {

uint64_t now_ns();  // monotonic clock

struct TraceSpan {
  const char* lane = "";  // a string literal or one that outlives the trace
  const char* name = "";  // likewise
  uint64_t start_ns = 0, end_ns = 0;
  uint64_t bytes = 0, flops = 0;
};

class Trace {
 public:
  explicit Trace(size_t max_spans) : spans_(max_spans), complete_(max_spans) {}

  void record(const TraceSpan& span) {
    const size_t i = next_.fetch_add(1, std::memory_order_relaxed);
    if (i >= spans_.size()) return;
    spans_[i] = span;
    complete_[i].store(true, std::memory_order_release);
  }
  // A span that is not known well enough to be recorded.
  void drop() { lost_.fetch_add(1, std::memory_order_relaxed); }

  size_t size() const { return std::min(next_.load(), spans_.size()); }
  size_t dropped() const {
    const size_t n = next_.load();
    return n - std::min(n, spans_.size()) + lost_.load();
  }
  // The span at `i` < size(); null while it is being recorded.
  const TraceSpan* find(size_t i) const { return complete_[i].load(std::memory_order_acquire) ? &spans_[i] : nullptr; }
  const TraceSpan& operator[](size_t i) const { return spans_[i]; }  // only while nothing is recording
  uint64_t bytes() const { return bytes_of(spans_.size()); }
  static uint64_t bytes_of(size_t max_spans) { return max_spans * (sizeof(TraceSpan) + sizeof(std::atomic<bool>)); }

 private:
  std::atomic<size_t> next_{0}, lost_{0};
  std::vector<TraceSpan> spans_;
  std::vector<std::atomic<bool>> complete_;
};

}  // namespace sluice
