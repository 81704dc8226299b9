#include "gpu/kernel_context.h"

#include "core/error.h"
#include "gpu/cuda_error.h"

namespace sluice::gpu {
namespace {

constexpr uint64_t counter_bytes = tile_counters * sizeof(uint32_t);

// Of device memory, now.
Status make_zero(void* memory, uint64_t bytes) {
  cudaStream_t stream = nullptr;
  SLUICE_RETURN_IF_ERROR(
      to_status(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream to clear memory in"));
  Status cleared = to_status(cudaMemsetAsync(memory, 0, bytes, stream), "clearing memory");
  if (cleared.ok()) cleared = to_status(cudaStreamSynchronize(stream), "clearing memory");
  to_status(cudaStreamDestroy(stream), "a stream to clear memory in").ignore();
  return cleared;
}

}  // namespace

uint64_t with_counters(uint64_t scratch_bytes) { return scratch_bytes + counter_bytes; }

Status give_scratch(KernelContext& context, int device, const Memory& scratch) {
  context.scratch = scratch.base();
  context.scratch_bytes = scratch.capacity();
  if (context.scratch_bytes < 2 * counter_bytes) return {};
  context.scratch_bytes = (context.scratch_bytes - counter_bytes) / sizeof(uint64_t) * sizeof(uint64_t);
  context.counters = reinterpret_cast<uint32_t*>(context.scratch + context.scratch_bytes);
  SLUICE_RETURN_IF_ERROR(to_status(cudaSetDevice(device), "choosing the device"));
  return make_zero(context.counters, counter_bytes);
}

}  // namespace sluice::gpu
