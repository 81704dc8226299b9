#include "gpu/gpu_queue.h"

#include <utility>

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
  if (!stream_->begin_work()) return;
  const Status launched = run(stream_->get(), call, context_);
  if (launched.ok()) account(call);
  stream_->done(launched);
}

void GpuQueue::account(const KernelCall& call) {
  const Cost c = cost(call);
  stream_->count(c.bytes, c.flops);
  Counters& counters = counters_[call.index()];
  add(counters.calls, 1);
  add(counters.bytes, c.bytes);
  add(counters.flops, c.flops);
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
