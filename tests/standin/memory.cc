// Device memory and page-locked host memory.
#include "tests/standin/guarded.h"
#include "tests/standin/runtime.h"

namespace standin {
namespace {

constexpr size_t device_alignment = 256, host_alignment = 4096;

bool overlaps(const Runtime& state, uintptr_t start, size_t bytes) {
  auto after = state.memory.lower_bound(start + bytes);
  if (after == state.memory.begin()) return false;
  const auto& [other, found] = *--after;
  return other + found.bytes > start;
}

bool may_lock(const Runtime& state, size_t bytes) {
  return state.registered_bytes + state.host_bytes + bytes <= state.options.host_register_bytes;
}

// Takes the allocation of this kind at exactly this address out of the books; 0 bytes if there is none.
size_t forget(Runtime& state, void* address, MemoryKind kind) {
  const auto found = state.memory.find(reinterpret_cast<uintptr_t>(address));
  if (found == state.memory.end() || found->second.kind != kind) return 0;
  const size_t bytes = found->second.bytes;
  state.memory.erase(found);
  return bytes;
}

cudaError_t allocate(Runtime& state, void** memory, size_t bytes, MemoryKind kind, uint64_t& total) {
  void* fresh = guarded_alloc(bytes, kind == MemoryKind::device ? device_alignment : host_alignment);
  if (fresh == nullptr) return cudaErrorMemoryAllocation;
  state.memory[reinterpret_cast<uintptr_t>(fresh)] = {bytes, kind};
  total += bytes;
  *memory = fresh;
  return cudaSuccess;
}

cudaError_t free_memory(Runtime& state, void* memory, MemoryKind kind, uint64_t& total) {
  if (memory == nullptr) return cudaSuccess;
  const size_t bytes = forget(state, memory, kind);
  if (bytes == 0) return cudaErrorInvalidValue;
  if (!guard_intact(memory, bytes)) {
    state.add_error("memory of " + std::to_string(bytes) + " bytes was written beyond its end");
  }
  total -= bytes;
  guarded_free(memory);
  return cudaSuccess;
}

}  // namespace

void forbid(const void* memory, uint64_t bytes) { poison(memory, bytes); }
void allow(const void* memory, uint64_t bytes) { unpoison(memory, bytes); }

}  // namespace standin

using namespace standin;

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  return api(Call::mem_get_info, [&](Runtime& state) {
    *free_bytes = state.free_bytes();
    *total_bytes = state.options.device_bytes;
    return cudaSuccess;
  });
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  *memory = nullptr;
  return api(Call::malloc, [&](Runtime& state) {
    if (bytes == 0) return cudaSuccess;
    if (bytes > state.free_bytes()) return cudaErrorMemoryAllocation;
    return allocate(state, memory, bytes, MemoryKind::device, state.device_bytes);
  });
}

cudaError_t cudaFree(void* memory) {
  return give_back(Call::free,
                   [&](Runtime& state) { return free_memory(state, memory, MemoryKind::device, state.device_bytes); });
}

cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned /*flags*/) {
  *memory = nullptr;
  return api(Call::host_alloc, [&](Runtime& state) {
    if (bytes == 0) return cudaSuccess;
    if (!may_lock(state, bytes)) return cudaErrorMemoryAllocation;
    return allocate(state, memory, bytes, MemoryKind::allocated_host, state.host_bytes);
  });
}

cudaError_t cudaFreeHost(void* memory) {
  return give_back(Call::free_host, [&](Runtime& state) {
    return free_memory(state, memory, MemoryKind::allocated_host, state.host_bytes);
  });
}

cudaError_t cudaHostRegister(void* memory, size_t bytes, unsigned /*flags*/) {
  return api(Call::host_register, [&](Runtime& state) {
    const auto start = reinterpret_cast<uintptr_t>(memory);
    if (memory == nullptr || bytes == 0) return cudaErrorInvalidValue;
    if (overlaps(state, start, bytes)) return cudaErrorHostMemoryAlreadyRegistered;
    if (!may_lock(state, bytes)) return cudaErrorMemoryAllocation;
    state.memory[start] = {bytes, MemoryKind::registered_host};
    state.registered_bytes += bytes;
    return cudaSuccess;
  });
}

cudaError_t cudaHostUnregister(void* memory) {
  return give_back(Call::host_unregister, [&](Runtime& state) {
    const size_t bytes = forget(state, memory, MemoryKind::registered_host);
    state.registered_bytes -= bytes;
    return bytes > 0 ? cudaSuccess : cudaErrorHostMemoryNotRegistered;
  });
}

cudaError_t cudaHostGetDevicePointer(void** device_memory, void* memory, unsigned /*flags*/) {
  *device_memory = nullptr;
  return api(Call::host_get_device_pointer, [&](Runtime& state) {
    const MemoryKind kind = state.find(memory, 1).kind;
    if (kind != MemoryKind::allocated_host && kind != MemoryKind::registered_host) return cudaErrorInvalidValue;
    *device_memory = memory;
    return cudaSuccess;
  });
}
