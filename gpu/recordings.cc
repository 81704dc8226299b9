#include "gpu/recordings.h"

#include <algorithm>

#include "gpu/cuda_error.h"

namespace sluice::gpu {
namespace {

void destroy(const Recordings::Recording& recording) {
  if (recording.graph != nullptr) to_status(cudaGraphExecDestroy(recording.graph), "a graph").ignore();
}

}  // namespace

Recordings::~Recordings() {
  abandon();
  forget();
  if (stream_ != nullptr) to_status(cudaStreamDestroy(stream_), "the stream that captures").ignore();
}

Status Recordings::begin(uint64_t key) {
  if (stream_ == nullptr)
    SLUICE_RETURN_IF_ERROR(to_status(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "recording"));
  SLUICE_RETURN_IF_ERROR(to_status(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), "recording"));
  current_ = std::make_unique<Recording>();
  current_->key = key;
  return {};
}

void Recordings::count(const KernelCall& call) {
  const Cost c = cost(call);
  LaunchedKernels& kernel = current_->kernels[call.index()];
  ++kernel.calls;
  kernel.bytes += c.bytes;
  kernel.flops += c.flops;
}

Status Recordings::end() {
  std::unique_ptr<Recording> recording = std::move(current_);
  cudaGraph_t graph = nullptr;
  SLUICE_RETURN_IF_ERROR(to_status(cudaStreamEndCapture(stream_, &graph), "recording"));
  const Status made = to_status(cudaGraphInstantiate(&recording->graph, graph, 0), "recording");
  to_status(cudaGraphDestroy(graph), "recording").ignore();
  if (!made.ok()) return made;
  if (kept_.size() == most) {
    destroy(*kept_.front());
    kept_.erase(kept_.begin());
  }
  kept_.push_back(std::move(recording));
  return {};
}

void Recordings::forget() {
  for (const auto& recording : kept_) destroy(*recording);
  kept_.clear();
}

void Recordings::abandon() {
  if (!capturing()) return;
  current_.reset();
  cudaGraph_t graph = nullptr;
  if (cudaStreamEndCapture(stream_, &graph) == cudaSuccess && graph != nullptr) (void)cudaGraphDestroy(graph);
  (void)cudaGetLastError();
}

// Where it is kept, or the end.
size_t Recordings::place_of(uint64_t key) const {
  const auto at = std::find_if(kept_.begin(), kept_.end(), [key](const auto& r) { return r->key == key; });
  return static_cast<size_t>(at - kept_.begin());
}

bool Recordings::has(uint64_t key) const { return place_of(key) < kept_.size(); }

const Recordings::Recording* Recordings::use(uint64_t key) {
  if (!has(key)) return nullptr;
  const auto at = kept_.begin() + static_cast<ptrdiff_t>(place_of(key));
  std::rotate(at, at + 1, kept_.end());
  return kept_.back().get();
}

}  // namespace sluice::gpu
