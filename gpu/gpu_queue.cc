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
  if (n_held_ > 0 && !joins(held(), call)) flush();
  held_[n_held_++] = call;
}

// Runs or records what was held back.
void GpuQueue::flush() {
  const std::span<const KernelCall> calls = held();
  n_held_ = 0;
  if (calls.empty()) return;
  if (recordings_.capturing()) return keep(calls);
  if (!stream_->begin_work()) return;
  const Status launched = run(stream_->get(), calls, context_);
  if (launched.ok())
    for (const KernelCall& call : calls) {
      const Cost c = cost(call);
      account(call.index(), {{}, 1, c.bytes, c.flops});
    }
  stream_->done(launched);
}

void GpuQueue::keep(std::span<const KernelCall> calls) {
  const Status kept = run(recordings_.stream(), calls, context_);
  if (!kept.ok()) recordings_.abandon();
  else
    for (const KernelCall& call : calls) recordings_.count(call);
  stream_->done(kept);
}

void GpuQueue::wait(const Event& event) {
  flush();
  stream_->wait(event);
}

Event GpuQueue::signal() {
  flush();
  return stream_->signal();
}

Event GpuQueue::signal_aside() {
  flush();
  return stream_->signal_aside();
}

void GpuQueue::record(uint64_t key) {
  flush();
  if (stream_->enter()) stream_->done(recordings_.begin(key));
}

void GpuQueue::replay(uint64_t key) {
  flush();
  if (recordings_.capturing()) stream_->done(recordings_.end());
  if (!stream_->begin_work()) return;
  const Recordings::Recording* recording = recordings_.use(key);
  if (recording == nullptr) return stream_->done(Status(Code::internal, "gpu: no such recording"));
  stream_->done(to_status(cudaGraphLaunch(recording->graph, stream_->get()), "replaying"));
  for (size_t i = 0; i < n_kernels; ++i) account(i, recording->kernels[i]);
}

// A step that failed may have left a recording unfinished.
void GpuQueue::reset() {
  n_held_ = 0;
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
