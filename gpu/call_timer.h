// CallTimer: how long a GPU takes over calls that follow each other, as a segment of a model runs them.
//
// The calls are captured as one CUDA graph, so that the host's launches do not count; the graph is replayed and
// timed by CUDA events.
// Threads: one at a time. Uses no stream but its own.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "sluice/status.h"

namespace sluice::gpu {

class CallTimer {
 public:
  // On the current device.
  static Result<std::unique_ptr<CallTimer>> create();
  ~CallTimer();
  CallTimer(const CallTimer&) = delete;
  CallTimer& operator=(const CallTimer&) = delete;

  cudaStream_t stream() const { return stream_; }

  // Microseconds of one of `n` calls, the median of `repeats` replays after one that warms up. enqueue(i) puts
  // the i-th call into stream() and does nothing else there.
  Result<double> us(uint32_t n, uint32_t repeats, const std::function<Status(uint32_t)>& enqueue);

  // The same for work that a graph is not to hold: launched `n` times in a row for each repeat.
  Result<double> launched_us(uint32_t n, uint32_t repeats, const std::function<Status(uint32_t)>& enqueue);

 private:
  CallTimer() = default;
  Result<double> median_us(uint32_t n, uint32_t repeats, const std::function<Status()>& run_all);

  cudaStream_t stream_ = nullptr;
  cudaEvent_t start_ = nullptr, end_ = nullptr;
};

}  // namespace sluice::gpu
