// GpuQueue: the compute queue of a GPU: kernels on one CUDA stream.
//
// Contract: core/queue.h, with what gpu/stream.h says of failures that show late. Tables that a call names
// (rows, spans, tokens, positions, …) are read by the kernels when they run: they lie in pinned host memory or
// in the GPU's, and stay as they are until an Event behind the call.
// A stream holds some thousand launches; with more of them waiting launch() waits too.
// Recordings are CUDA graphs. A call is held back until the next one, or wait() or signal(), since some have a kernel
// in common (gpu/kernels/kernels.h). Nothing is allocated after create(), but on failures and by recording.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <span>

#include "core/queue.h"
#include "gpu/kernels/kernels.h"
#include "gpu/recordings.h"
#include "gpu/stream.h"

namespace sluice::gpu {

class GpuQueue : public Queue {
 public:
  static constexpr size_t n_kernels = std::variant_size_v<KernelCall>;

  ~GpuQueue() override { flush(); }
  // Both outlive the queue; the scratch in `context` is this queue's alone. `lane`: as for Stream.
  static Result<std::unique_ptr<GpuQueue>> create(Completions& completions, const KernelContext& context,
                                                  const char* lane = "gpu");

  void wait(const Event& event) override;
  void launch(const KernelCall& call) override;
  Event signal() override;
  Event signal_aside() override;
  void reset() override;
  bool can_record() const override { return true; }
  bool has_recording(uint64_t key) const override { return recordings_.has(key); }
  void record(uint64_t key) override;
  void replay(uint64_t key) override;
  void forget_recordings() override { recordings_.forget(); }

  // From any thread; what was launched so far. Indexed as KernelCall is.
  std::array<LaunchedKernels, n_kernels> totals() const;

 private:
  struct Counters {
    std::atomic<uint64_t> calls{0}, bytes{0}, flops{0};
  };
  GpuQueue(std::unique_ptr<Stream> stream, const KernelContext& context)
      : stream_(std::move(stream)), context_(context) {}
  std::span<const KernelCall> held() const { return {held_.data(), n_held_}; }
  void flush();
  void keep(std::span<const KernelCall> calls);
  void account(size_t kernel, const LaunchedKernels& launched);

  const std::unique_ptr<Stream> stream_;
  const KernelContext context_;
  Recordings recordings_;
  std::array<KernelCall, most_joint> held_;
  size_t n_held_ = 0;
  std::array<Counters, n_kernels> counters_;
};

}  // namespace sluice::gpu
