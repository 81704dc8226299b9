// GpuCopyQueue: copies to, from or within a GPU's memory, on a stream of its own.
//
// Contract: core/queue.h, with what gpu/stream.h says of failures that show late. The host's side of a copy
// must be pinned (gpu/gpu_memory.h): with pageable memory CUDA copies in small pieces and may make the caller
// wait. Copies that continue each other on both sides are made as one, as the pieces of a large block are: a
// copy starts at the latest with the next wait() or signal().
#pragma once

#include <atomic>
#include <memory>

#include "core/queue.h"
#include "gpu/stream.h"

namespace sluice::gpu {

class GpuCopyQueue : public CopyQueue {
 public:
  // `completions` outlives the queue. `lane`: as for Stream.
  static Result<std::unique_ptr<GpuCopyQueue>> create(Completions& completions, const char* lane = "pcie");
  ~GpuCopyQueue() override { flush(); }

  void wait(const Event& event) override;
  void copy(std::byte* to, const std::byte* from, uint64_t bytes) override;
  Event signal() override;
  void reset() override;

  // From any thread: what CUDA was asked to copy so far.
  uint64_t copies() const { return copies_.load(std::memory_order_relaxed); }
  uint64_t bytes_copied() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  explicit GpuCopyQueue(std::unique_ptr<Stream> stream) : stream_(std::move(stream)) {}
  void flush();

  const std::unique_ptr<Stream> stream_;
  std::byte* to_ = nullptr;  // a copy that may still grow
  const std::byte* from_ = nullptr;
  uint64_t pending_ = 0;
  std::atomic<uint64_t> copies_{0}, bytes_{0};
};

}  // namespace sluice::gpu
