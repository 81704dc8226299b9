#include "gpu/gpu_memory.h"

#include <cuda_runtime.h>

#include "core/bytes.h"
#include "core/error.h"
#include "gpu/cuda_error.h"

namespace sluice::gpu {
namespace {

constexpr uint64_t host_alignment = 2 * MiB, device_alignment = 4096;  // core/memory.h

std::byte* aligned(void* memory, uint64_t alignment) {
  const uint64_t address = reinterpret_cast<uintptr_t>(memory);
  return static_cast<std::byte*>(memory) + (align_up(address, alignment) - address);
}

Status use(int device) { return to_status(cudaSetDevice(device), fmt::format("GPU {}", device)); }

Status no_room(int device, uint64_t bytes, const Status& why) {
  const Result<Vram> now = vram(device);
  const std::string free = now.ok() ? format_size(now->free) + " are free" : "and how much is free is not known";
  return error(why.code(), "GPU {}: {} were asked for, {}; ask for less (--vram) or end other programs on it: {}",
               device, format_size(bytes), free, why.message());
}

// Whether kernels may use the host's address of registered memory.
Result<bool> same_address(int device) {
  int same = 0;
  SLUICE_RETURN_IF_ERROR(to_status(cudaDeviceGetAttribute(&same, cudaDevAttrCanUseHostPointerForRegisteredMem, device),
                                   "asking about pinning"));
  return same != 0;
}

}  // namespace

Result<Vram> vram(int device) {
  SLUICE_RETURN_IF_ERROR(use(device));
  size_t free = 0, total = 0;
  SLUICE_RETURN_IF_ERROR(to_status(cudaMemGetInfo(&free, &total), fmt::format("GPU {}: free memory", device)));
  return Vram{total, free};
}

// CUDA promises 256 bytes of alignment.
uint64_t GpuMemory::cost(uint64_t bytes) { return align_up(bytes + device_alignment, granule); }

Result<std::unique_ptr<GpuMemory>> GpuMemory::create(int device, uint64_t bytes) {
  if (bytes == 0 || bytes > INT64_MAX)
    return error(Code::invalid_argument, "GPU memory of {} bytes was asked for", bytes);
  SLUICE_RETURN_IF_ERROR(use(device));
  void* allocation = nullptr;
  const Status taken = to_status(cudaMalloc(&allocation, cost(bytes)), "cudaMalloc");
  if (!taken.ok()) return no_room(device, bytes, taken);
  return std::unique_ptr<GpuMemory>(new GpuMemory(device, allocation, aligned(allocation, device_alignment), bytes));
}

GpuMemory::~GpuMemory() { to_status(cudaFree(allocation_), "cudaFree").ignore(); }

Result<std::unique_ptr<PinnedMemory>> PinnedMemory::pin(int device, Memory& memory) {
  SLUICE_RETURN_IF_ERROR(use(device));
  SLUICE_ASSIGN_OR_RETURN(const bool same, same_address(device));
  const std::string size = format_size(memory.capacity());
  if (!same) return error(Code::unavailable, "GPU {}: {} of host memory have another address there", device, size);
  const Status pinned =
      to_status(cudaHostRegister(memory.base(), memory.capacity(), cudaHostRegisterPortable | cudaHostRegisterMapped),
                "cudaHostRegister");
  if (!pinned.ok())
    return error(Code::unavailable, "the system refuses to pin {} of host memory (see ulimit -l): {}", size,
                 pinned.message());
  return std::unique_ptr<PinnedMemory>(new PinnedMemory(memory.base(), memory.capacity(), nullptr));
}

Result<std::unique_ptr<PinnedMemory>> PinnedMemory::allocate(int device, uint64_t bytes) {
  if (bytes == 0) return error(Code::invalid_argument, "pinned memory of 0 bytes was asked for");
  SLUICE_RETURN_IF_ERROR(use(device));
  void* allocation = nullptr;
  const uint64_t whole = bytes + host_alignment;
  const Status taken =
      to_status(cudaHostAlloc(&allocation, whole, cudaHostAllocPortable | cudaHostAllocMapped), "cudaHostAlloc");
  if (!taken.ok())
    return error(Code::over_budget, "the system gives no {} of pinned memory: {}", format_size(bytes), taken.message());
  return std::unique_ptr<PinnedMemory>(new PinnedMemory(aligned(allocation, host_alignment), bytes, allocation));
}

PinnedMemory::~PinnedMemory() {
  if (registered()) to_status(cudaHostUnregister(base_), "cudaHostUnregister").ignore();
  else to_status(cudaFreeHost(allocation_), "cudaFreeHost").ignore();
}

Result<Staging> pin_or_ring(int device, Memory& memory, uint64_t ring_bytes) {
  auto pinned = PinnedMemory::pin(device, memory);
  if (pinned.ok()) return Staging{std::move(*pinned), {}};
  SLUICE_ASSIGN_OR_RETURN(auto ring, PinnedMemory::allocate(device, ring_bytes));
  return Staging{std::move(ring), fmt::format("{}; copies to the GPU go through a pinned ring of {} and are slower",
                                              pinned.status().message(), format_size(ring_bytes))};
}

}  // namespace sluice::gpu
