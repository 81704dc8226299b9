#include "gpu/gpu.h"

#include <algorithm>
#include <atomic>
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
    const uint64_t bytes = std::max(memory + request_.scratch_bytes, io_unit);
    SLUICE_ASSIGN_OR_RETURN(arena_, GpuMemory::create(request_.device, bytes));
    memory_.emplace(*arena_, 0, request_.memory_bytes);
    scratch_.emplace(*arena_, memory, request_.scratch_bytes);
    SLUICE_ASSIGN_OR_RETURN(shared_,
                            PinnedMemory::allocate(request_.device, std::max<uint64_t>(request_.shared_bytes, 1)));
    GpuOptions options;
    options.device = request_.device;
    options.memory_tier = request_.memory_tier;
    options.scratch = request_.scratch_bytes > 0 ? &*scratch_ : nullptr;
    options.trace = request_.trace;
    SLUICE_ASSIGN_OR_RETURN(device_, GpuDevice::create(options));
    if (request_.pages != nullptr)
      if (auto pinned = PinnedMemory::pin(request_.device, *request_.pages); pinned.ok()) pages_ = std::move(*pinned);
    return take_weights(request_.weight_bytes, request_.host);
  }

  Device& device() override { return *device_; }
  Memory& memory() override { return *memory_; }
  Memory& weights() override { return *weights_; }
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
  // Copies went one way, and since a host's memory could not be pinned the other.
  uint64_t bytes_to_device() const override {
    const StagedCopyQueue* const staged = known_staged_.load(std::memory_order_acquire);
    return device_->to_device().bytes_copied() + (staged != nullptr ? staged->bytes_copied() : 0);
  }
  void drop_weights() override {
    device_->queue().forget_recordings();
    weights_.reset();
    weights_arena_.reset();
    if (staged_ == nullptr) host_ = {};
  }
  Status take_weights(uint64_t bytes, Memory* host) override {
    const Status status = take(bytes, host);
    if (!status.ok()) drop_weights();
    return status;
  }
  const std::string& warning() const override { return host_.warning; }
  std::string describe() const override { return device_->describe(); }

 private:
  Status take(uint64_t bytes, Memory* host) {
    SLUICE_ASSIGN_OR_RETURN(weights_arena_, GpuMemory::create(request_.device, std::max(bytes, io_unit)));
    weights_.emplace(*weights_arena_, 0, bytes);
    // A ring that was once needed serves any memory.
    return host != nullptr && staged_ == nullptr ? reach_host(*host) : Status();
  }
  Status reach_host(Memory& host) {
    SLUICE_ASSIGN_OR_RETURN(host_, pin_or_ring(request_.device, host, ring_bytes));
    if (host_.warning.empty()) return {};
    SLUICE_ASSIGN_OR_RETURN(
        staged_, StagedCopyQueue::create(device_->completions(), *host_.memory, StagedCopyQueue::Direction::to_device,
                                         device_->to_device_lane()));
    known_staged_.store(staged_.get(), std::memory_order_release);
    return {};
  }

  const GpuRequest request_;
  std::unique_ptr<GpuMemory> arena_, weights_arena_;
  std::optional<MemorySlice> memory_, scratch_, weights_;
  std::unique_ptr<PinnedMemory> shared_, pages_;
  Staging host_;  // before the device: its queues end first
  std::unique_ptr<GpuDevice> device_;
  std::unique_ptr<StagedCopyQueue> staged_;
  std::atomic<const StagedCopyQueue*> known_staged_{nullptr};  // for those who only count
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
