#include "gpu/call_timer.h"

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "gpu/cuda_error.h"

namespace sluice::gpu {
namespace {

struct Graph {
  ~Graph() {
    if (executable != nullptr) cudaGraphExecDestroy(executable);
    if (graph != nullptr) cudaGraphDestroy(graph);
  }
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
};

Status enqueue_all(uint32_t n, const std::function<Status(uint32_t)>& enqueue) {
  for (uint32_t i = 0; i < n; ++i) SLUICE_RETURN_IF_ERROR(enqueue(i));
  return {};
}

}  // namespace

Result<std::unique_ptr<CallTimer>> CallTimer::create() {
  std::unique_ptr<CallTimer> timer(new CallTimer());
  SLUICE_RETURN_IF_ERROR(
      to_status(cudaStreamCreateWithFlags(&timer->stream_, cudaStreamNonBlocking), "making a stream to time in"));
  for (cudaEvent_t* event : {&timer->start_, &timer->end_})
    SLUICE_RETURN_IF_ERROR(
        to_status(cudaEventCreateWithFlags(event, cudaEventDefault), "making an event to time with"));
  return timer;
}

CallTimer::~CallTimer() {
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  for (cudaEvent_t event : {start_, end_})
    if (event != nullptr) cudaEventDestroy(event);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

Result<double> CallTimer::median_us(uint32_t n, uint32_t repeats, const std::function<Status()>& run_all) {
  std::vector<float> times;
  for (uint32_t i = 0; i < repeats + 1; ++i) {
    SLUICE_RETURN_IF_ERROR(to_status(cudaEventRecord(start_, stream_), "recording an event"));
    SLUICE_RETURN_IF_ERROR(run_all());
    SLUICE_RETURN_IF_ERROR(to_status(cudaEventRecord(end_, stream_), "recording an event"));
    SLUICE_RETURN_IF_ERROR(to_status(cudaEventSynchronize(end_), "waiting for calls that are timed"));
    float ms = 0;
    SLUICE_RETURN_IF_ERROR(to_status(cudaEventElapsedTime(&ms, start_, end_), "reading the time between events"));
    if (i > 0) times.push_back(ms);
  }
  std::nth_element(times.begin(), times.begin() + static_cast<int64_t>(times.size() / 2), times.end());
  return double{times[times.size() / 2]} * 1e3 / n;
}

Result<double> CallTimer::us(uint32_t n, uint32_t repeats, const std::function<Status(uint32_t)>& enqueue) {
  Graph graph;
  SLUICE_RETURN_IF_ERROR(
      to_status(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "capturing calls"));
  const Status enqueued = enqueue_all(n, enqueue);
  const cudaError_t ended = cudaStreamEndCapture(stream_, &graph.graph);
  SLUICE_RETURN_IF_ERROR(enqueued);
  SLUICE_RETURN_IF_ERROR(to_status(ended, "capturing calls"));
  SLUICE_RETURN_IF_ERROR(to_status(cudaGraphInstantiate(&graph.executable, graph.graph, 0), "making a graph of calls"));
  return median_us(n, repeats,
                   [&] { return to_status(cudaGraphLaunch(graph.executable, stream_), "launching a graph of calls"); });
}

Result<double> CallTimer::launched_us(uint32_t n, uint32_t repeats, const std::function<Status(uint32_t)>& enqueue) {
  return median_us(n, repeats, [&] { return enqueue_all(n, enqueue); });
}

}  // namespace sluice::gpu
