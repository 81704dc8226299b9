#include "gpu/gpu.h"

#include <algorithm>
#include <optional>

#include "core/bytes.h"
#include "core/error.h"
#include "gpu/dense_product.h"
#include "gpu/driver.h"
#include "gpu/gpu_device.h"
#include "gpu/gpu_memory.h"
#include "gpu/staged_copy_queue.h"

namespace sluice::gpu {
namespace {

constexpr uint64_t ring_bytes = 32 * MiB;

class OpenGpu : public Gpu {
 public:
  explicit OpenGpu(const GpuRequest& request) : request_(request) {}

  Status start() {
    load_kernels_early();
    const uint64_t memory = align_up(request_.memory_bytes, io_unit);
    SLUICE_ASSIGN_OR_RETURN(arena_, GpuMemory::create(request_.device, memory + request_.scratch_bytes));
    memory_.emplace(*arena_, 0, memory);
    scratch_.emplace(*arena_, memory, request_.scratch_bytes);
    SLUICE_ASSIGN_OR_RETURN(shared_,
                            PinnedMemory::allocate(request_.device, std::max<uint64_t>(request_.shared_bytes, 1)));
    GpuOptions options;
    options.device = request_.device;
    options.memory_tier = request_.memory_tier;
    options.scratch = request_.scratch_bytes > 0 ? &*scratch_ : nullptr;
    options.trace = request_.trace;
    SLUICE_ASSIGN_OR_RETURN(device_, GpuDevice::create(options));
    return request_.host != nullptr ? reach_host(*request_.host) : Status();
  }

  Device& device() override { return *device_; }
  Memory& memory() override { return *memory_; }
  Memory& shared() override { return *shared_; }
  CopyQueue& to_device() override {
    if (staged_ != nullptr) return *staged_;
    return device_->to_device();
  }
  CopyQueue& within() override { return device_->to_host(); }
  Status lost() const override { return device_->lost(); }
  uint64_t bytes_computed_on() const override {
    uint64_t bytes = 0;
    for (const LaunchedKernels& kernel : device_->compute().totals()) bytes += kernel.bytes;
    return bytes;
  }
  uint64_t bytes_to_device() const override {
    return staged_ != nullptr ? staged_->bytes_copied() : device_->to_device().bytes_copied();
  }
  const std::string& warning() const override { return host_.warning; }
  std::string describe() const override { return device_->describe(); }

 private:
  Status reach_host(Memory& host) {
    SLUICE_ASSIGN_OR_RETURN(host_, pin_or_ring(request_.device, host, ring_bytes));
    if (host_.warning.empty()) return {};
    SLUICE_ASSIGN_OR_RETURN(
        staged_, StagedCopyQueue::create(device_->completions(), *host_.memory, StagedCopyQueue::Direction::to_device,
                                         device_->to_device_lane()));
    return {};
  }

  const GpuRequest request_;
  std::unique_ptr<GpuMemory> arena_;
  std::optional<MemorySlice> memory_, scratch_;
  std::unique_ptr<PinnedMemory> shared_;
  Staging host_;  // before the device: its queues end first
  std::unique_ptr<GpuDevice> device_;
  std::unique_ptr<StagedCopyQueue> staged_;
};

}  // namespace

Result<std::unique_ptr<Gpu>> open_gpu(const GpuRequest& request) {
  auto gpu = std::make_unique<OpenGpu>(request);
  SLUICE_RETURN_IF_ERROR(gpu->start());
  return std::unique_ptr<Gpu>(std::move(gpu));
}

// Of what is in use others may have a part; a context takes no more than this.
Result<GpuSpace> gpu_space(int device) {
  constexpr uint64_t most_context = 640 * MiB;
  load_kernels_early();
  SLUICE_ASSIGN_OR_RETURN(const Vram now, vram(device));
  return GpuSpace{now.total, now.free, std::min(now.in_use(), most_context)};
}

std::string gpu_library(int device) { return dense_product_name(device); }

uint64_t gpu_memory_cost(uint64_t bytes) { return GpuMemory::cost(bytes); }

// Partial results of attention, of all pages of one token or of as many as keep the device busy; or weights of a
// prompt, dequantized; or the best tokens of parts of the vocabulary.
uint64_t kernel_scratch_bytes(const ScratchShape& s) {
  constexpr uint64_t page_tokens = 64, enough = 64 * MiB;
  const uint64_t least = attention_scratch_bytes(s.n_heads, s.head_dim);
  const uint64_t parts = (uint64_t{s.step_tokens} * div_up(s.context, page_tokens) + s.step_tokens) / 2;
  const uint64_t attention = std::clamp(least * std::max<uint64_t>(parts, 1), least, std::max(least, enough));
  const uint64_t dense = s.step_tokens < dense_tokens ? 0 : dense_scratch_bytes(UINT32_MAX, s.widest_row);
  return align_up(std::max({attention, dense, best_scratch_bytes(s.n_vocab)}), io_unit);
}

}  // namespace sluice::gpu
