#include "gpu/gpu_copy_queue.h"

#include <utility>

#include "core/bytes.h"
#include "core/error.h"
#include "gpu/cuda_error.h"

namespace sluice::gpu {

Result<std::unique_ptr<GpuCopyQueue>> GpuCopyQueue::create(Completions& completions, const char* lane) {
  SLUICE_ASSIGN_OR_RETURN(auto stream, Stream::create(completions, lane));
  return std::unique_ptr<GpuCopyQueue>(new GpuCopyQueue(std::move(stream)));
}

void GpuCopyQueue::wait(const Event& event) {
  flush();
  stream_->wait(event);
}

void GpuCopyQueue::copy(std::byte* to, const std::byte* from, uint64_t bytes) {
  if (pending_ == 0 || to != to_ + pending_ || from != from_ + pending_) {
    flush();
    to_ = to;
    from_ = from;
  }
  pending_ += bytes;
}

// Who waits for a copy is another stream, or has waited so long that some microseconds do not matter.
Event GpuCopyQueue::signal() {
  flush();
  return stream_->signal_aside();
}

void GpuCopyQueue::reset() {
  pending_ = 0;
  stream_->reset();
}

void GpuCopyQueue::flush() {
  const uint64_t bytes = std::exchange(pending_, 0);
  if (bytes == 0 || !stream_->begin_work()) return;
  const Status made = to_status(cudaMemcpyAsync(to_, from_, bytes, cudaMemcpyDefault, stream_->get()), "copying");
  stream_->done(made.with_context(made.ok() ? "" : fmt::format("a copy of {}", format_size(bytes))));
  if (!made.ok()) return;
  stream_->count(bytes, 0);
  copies_.store(copies() + 1, std::memory_order_relaxed);
  bytes_.store(bytes_copied() + bytes, std::memory_order_relaxed);
}

}  // namespace sluice::gpu
