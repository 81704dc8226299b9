#include "gpu/gpu_queue.h"

#include <utility>

#include "gpu/cuda_error.h"

namespace sluice::gpu {
namespace {

// Plain adding is enough: one thread writes.
void add(std::atomic<uint64_t>& counter, uint64_t n) {
  counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
}

template <size_t... I>
void name_all(std::array<LaunchedKernels, GpuQueue::n_kernels>& totals, std::index_sequence<I...>) {
  ((totals[I].name = name(KernelCall(std::in_place_index<I>))), ...);
}

}  // namespace

Result<std::unique_ptr<GpuQueue>> GpuQueue::create(Completions& completions, const KernelContext& context,
                                                   const char* lane) {
  SLUICE_ASSIGN_OR_RETURN(auto stream, Stream::create(completions, lane));
  return std::unique_ptr<GpuQueue>(new GpuQueue(std::move(stream), context));
}

void GpuQueue::launch(const KernelCall& call) {
  if (recordings_.capturing()) {
    const Status kept = run(recordings_.stream(), call, context_);
    if (kept.ok()) recordings_.count(call);
    return stream_->done(kept);
  }
  if (!stream_->begin_work()) return;
  const Status launched = run(stream_->get(), call, context_);
  if (launched.ok()) {
    const Cost c = cost(call);
    account(call.index(), {{}, 1, c.bytes, c.flops});
  }
  stream_->done(launched);
}

void GpuQueue::record(uint64_t key) {
  if (stream_->begin_work()) stream_->done(recordings_.begin(key));
}

void GpuQueue::replay(uint64_t key) {
  if (recordings_.capturing()) stream_->done(recordings_.end());
  if (!stream_->begin_work()) return;
  const Recordings::Recording* recording = recordings_.use(key);
  if (recording == nullptr) return stream_->done(Status(Code::internal, "gpu: no such recording"));
  stream_->done(to_status(cudaGraphLaunch(recording->graph, stream_->get()), "replaying"));
  for (size_t i = 0; i < n_kernels; ++i) account(i, recording->kernels[i]);
}

// A step that failed may have left a recording unfinished.
void GpuQueue::reset() {
  recordings_.abandon();
  stream_->reset();
}

void GpuQueue::account(size_t kernel, const LaunchedKernels& launched) {
  stream_->count(launched.bytes, launched.flops);
  Counters& counters = counters_[kernel];
  add(counters.calls, launched.calls);
  add(counters.bytes, launched.bytes);
  add(counters.flops, launched.flops);
}

std::array<LaunchedKernels, GpuQueue::n_kernels> GpuQueue::totals() const {
  std::array<LaunchedKernels, n_kernels> out;
  name_all(out, std::make_index_sequence<n_kernels>());
  for (size_t i = 0; i < n_kernels; ++i) {
    out[i].calls = counters_[i].calls.load(std::memory_order_relaxed);
    out[i].bytes = counters_[i].bytes.load(std::memory_order_relaxed);
    out[i].flops = counters_[i].flops.load(std::memory_order_relaxed);
  }
  return out;
}

}  // namespace sluice::gpu
