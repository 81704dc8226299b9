// Graphs captured from one stream: a list of operations that runs as one.
#include "tests/standin/stream.h"

struct CUgraph_st {
  standin::Ref<standin::Operations> operations;
};
struct CUgraphExec_st {
  standin::Ref<standin::Operations> operations;
};

namespace standin {
namespace {

class GraphOperation : public Operation {
 public:
  explicit GraphOperation(Ref<Operations> operations) : operations_(std::move(operations)) {}
  cudaError_t run(CUstream_st& stream) override {
    for (const Ref<Operation>& operation : operations_->list) {
      if (const cudaError_t failed = operation->run(stream); failed != cudaSuccess) return failed;
    }
    return cudaSuccess;
  }

 private:
  Ref<Operations> operations_;
};

}  // namespace
}  // namespace standin

using namespace standin;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return api(Call::begin_capture, [&](Runtime& state) {
    if (!alive(state, stream)) return cudaErrorInvalidResourceHandle;
    if (stream->capture) return cudaErrorIllegalState;
    stream->capture = Ref<Operations>(new Operations);
    stream->capture_mode = mode;
    if (mode == cudaStreamCaptureModeGlobal) ++state.global_captures;
    return cudaSuccess;
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  CUgraph_st* fresh = nullptr;
  const cudaError_t result = give_back(Call::end_capture, [&](Runtime& state) {
    if (!alive(state, stream)) return cudaErrorInvalidResourceHandle;
    if (!stream->capture) return cudaErrorIllegalState;
    const Ref<Operations> captured = std::exchange(stream->capture, {});
    if (stream->capture_mode == cudaStreamCaptureModeGlobal) --state.global_captures;
    if (std::exchange(stream->capture_broken, false)) return cudaErrorStreamCaptureInvalidated;
    fresh = new CUgraph_st{captured};
    return cudaSuccess;
  });
  Quiet quiet;
  Guard guard(runtime().lock);
  if (result != cudaSuccess) {
    delete fresh;
    return result;
  }
  runtime().graphs.insert(fresh);
  *graph = fresh;
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  Quiet quiet;
  Guard guard(runtime().lock);
  if (!alive(runtime(), stream)) return remember(cudaErrorInvalidResourceHandle);
  *status = !stream->capture         ? cudaStreamCaptureStatusNone
            : stream->capture_broken ? cudaStreamCaptureStatusInvalidated
                                     : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long /*flags*/) {
  *executable = nullptr;
  return api(Call::graph_instantiate, [&](Runtime& state) {
    if (state.graphs.count(graph) == 0) return cudaErrorInvalidValue;
    *executable = new CUgraphExec_st{graph->operations};
    state.executables.insert(*executable);
    return cudaSuccess;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return api(Call::graph_launch, [&](Runtime& state) {
    if (state.executables.count(executable) == 0) return cudaErrorInvalidValue;
    return enqueue(state, stream, Ref<Operation>(new GraphOperation(executable->operations)));
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return give_back(Call::graph_exec_destroy, [&](Runtime& state) {
    if (state.executables.erase(executable) == 0) return cudaErrorInvalidValue;
    delete executable;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return give_back(Call::graph_destroy, [&](Runtime& state) {
    if (state.graphs.erase(graph) == 0) return cudaErrorInvalidValue;
    delete graph;
    return cudaSuccess;
  });
}
