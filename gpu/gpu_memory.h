// GpuMemory, PinnedMemory: the memory of a GPU, and host memory that a GPU reaches.
//
// Both are taken once and carved by our own allocators; nothing is allocated from CUDA while a model runs.
// Threads: as Memory. Errors name how much was asked for, how much there was, and what to do.
#pragma once

#include <memory>
#include <string>

#include "core/memory.h"
#include "sluice/status.h"

namespace sluice::gpu {

// Bytes of one GPU, as the driver sees them now: `free` is also what other processes have left.
struct Vram {
  uint64_t total = 0, free = 0;
  uint64_t in_use() const { return total - free; }  // contexts, modules and other processes among it
};
Result<Vram> vram(int device);

// One arena of a GPU's memory. Its address means something to the device only.
//
// A budget has to be charged with cost(bytes), not with bytes: the driver hands memory out in whole
// granules. The context that CUDA makes for a process is not in it: of a limit L an arena may take
// L - (vram(device).in_use() after the first call - what other processes use).
class GpuMemory : public Memory {
 public:
  static constexpr uint64_t granule = uint64_t{2} << 20;
  static uint64_t cost(uint64_t bytes);

  // over_budget if the device has not that much left: others may have taken it since the plan was made;
  // 0 bytes is invalid_argument.
  static Result<std::unique_ptr<GpuMemory>> create(int device, uint64_t bytes);
  ~GpuMemory() override;
  GpuMemory(const GpuMemory&) = delete;
  GpuMemory& operator=(const GpuMemory&) = delete;

  std::byte* base() const override { return base_; }
  uint64_t capacity() const override { return capacity_; }
  bool host_accessible() const override { return false; }
  int device() const { return device_; }

 private:
  GpuMemory(int device, void* allocation, std::byte* base, uint64_t capacity)
      : device_(device), allocation_(allocation), base_(base), capacity_(capacity) {}
  const int device_;
  void* const allocation_;
  std::byte* const base_;
  const uint64_t capacity_;
};

// Page-locked host memory, at the same address for the CPU and for every GPU: copies from it run at the
// link's speed and beside everything else, and kernels may read it directly.
class PinnedMemory : public Memory {
 public:
  // Pins memory that is there (prefaulted on huge pages it takes 0.06 s/GiB), which must outlive this
  // object. unavailable where the system refuses: containers, WSL, a limit on locked memory.
  static Result<std::unique_ptr<PinnedMemory>> pin(int device, Memory& memory);
  // Memory of its own, from cudaHostAlloc: slow to make, meant for rings of some MiB. over_budget if there
  // is none.
  static Result<std::unique_ptr<PinnedMemory>> allocate(int device, uint64_t bytes);
  ~PinnedMemory() override;
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  std::byte* base() const override { return base_; }
  uint64_t capacity() const override { return capacity_; }
  bool host_accessible() const override { return true; }
  bool registered() const { return allocation_ == nullptr; }  // by pin()

 private:
  PinnedMemory(std::byte* base, uint64_t capacity, void* allocation)
      : base_(base), capacity_(capacity), allocation_(allocation) {}
  std::byte* const base_;
  const uint64_t capacity_;
  void* const allocation_;  // null: memory of somebody else, registered
};

// `memory` pinned whole or, where that is refused, a pinned ring of `ring_bytes` through which copies have
// to go (gpu/staged_copy_queue.h), and then the one warning to print.
struct Staging {
  std::unique_ptr<PinnedMemory> memory;
  std::string warning;  // empty if all is pinned
};
Result<Staging> pin_or_ring(int device, Memory& memory, uint64_t ring_bytes);

}  // namespace sluice::gpu
