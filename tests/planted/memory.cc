#include <sluice_standin/control.h>

#include <vector>

#include "gpu/kernels/intrinsics.h"
#include "gpu/launch.h"
#include "tests/planted/planted.h"
#include "tests/support/cuda_buffers.h"

namespace sluice::planted {
namespace {

using gpu::launch;
using testing::CudaStream;
using testing::DeviceArray;

constexpr uint32_t threads = 32;

SLUICE_KERNEL void beyond_static(float* out, uint32_t offset) {
  using namespace gpu;
  SLUICE_SHARED(float, values, [threads]);
  float* at = values;
  at[thread_x() + offset] = 1.0f;
  warp_barrier();
  out[thread_x()] = at[thread_x() + offset];
}

SLUICE_KERNEL void beyond_dynamic(float* out, uint32_t offset) {
  using namespace gpu;
  SLUICE_DYNAMIC_SHARED(float, values);
  values[thread_x() + offset] = 1.0f;
  warp_barrier();
  out[thread_x()] = values[thread_x() + offset];
}

SLUICE_KERNEL void beyond_global(float* out, uint32_t offset) { out[gpu::thread_x() + offset] = 1.0f; }

// Switches to the other threads and back between the write and the read.
SLUICE_KERNEL void beyond_stack(float* out, uint32_t offset) {
  using namespace gpu;
  float values[4] = {1.0f, 1.0f, 1.0f, 1.0f};
  float* volatile at = values;
  warp_barrier();
  out[thread_x()] = at[offset];
}

SLUICE_KERNEL void misaligned(float* out, uint32_t offset) {
  using namespace gpu;
  SLUICE_SHARED(float, values, [threads + 4]);
  values[thread_x()] = 1.0f;
  if (thread_x() < 4) values[threads + thread_x()] = 1.0f;
  block_barrier();
  out[thread_x()] = __builtin_bit_cast(float, load16(values + offset).words[0]);
}

template <bool wrong>
SLUICE_KERNEL void copies_late(const float* in, float* out) {
  using namespace gpu;
  SLUICE_SHARED(float, values, [4 * threads]);
  async_copy16(values + 4 * thread_x(), in + 4 * thread_x());
  async_commit();
  if constexpr (!wrong) async_wait<0>();
  block_barrier();
  out[thread_x()] = values[4 * (threads - 1 - thread_x())];
}

template <bool wrong>
SLUICE_KERNEL void forgets_to_write(float* out) {
  using namespace gpu;
  SLUICE_SHARED(float, values, [threads]);
  if (!wrong || thread_x() != 7) values[thread_x()] = 1.0f;
  block_barrier();
  out[thread_x()] = values[threads - 1 - thread_x()];
}

// All of `out` is 1 after the kernel.
template <class... P, class... A>
bool ones(uint32_t shared_bytes, void (*kernel)(float*, P...), A... arguments) {
  const CudaStream stream;
  const DeviceArray<float> out(threads);
  const Status status =
      launch(stream, {"planted"}, {.block_x = threads, .shared_bytes = shared_bytes}, kernel, out.data(), arguments...);
  if (!status.ok() || cudaStreamSynchronize(stream) != cudaSuccess) return false;
  for (const float value : out.read(stream)) {
    if (!(value == 1.0f)) return false;
  }
  return true;
}

}  // namespace

bool overrun_static_shared(bool wrong) { return ones(0, beyond_static, wrong ? 1u : 0u); }
bool overrun_dynamic_shared(bool wrong) { return ones(threads * 4, beyond_dynamic, wrong ? 1u : 0u); }
bool overrun_global(bool wrong) { return ones(0, beyond_global, wrong ? 1u : 0u); }
// Inside the allocation, but not in what the arena has given out.
bool overrun_arena(bool wrong) {
  const CudaStream stream;
  const DeviceArray<float> arena(4 * threads);
  standin::forbid(arena.data() + 2 * threads, 2 * threads * 4);
  const bool launched =
      launch(stream, {"planted"}, {.block_x = threads}, beyond_global, arena.data() + threads, wrong ? 1u : 0u).ok();
  const bool done = cudaStreamSynchronize(stream) == cudaSuccess;
  standin::allow(arena.data() + 2 * threads, 2 * threads * 4);
  return launched && done;
}
bool overrun_stack(bool wrong) { return ones(0, beyond_stack, wrong ? 4u : 0u); }
bool misaligned_access(bool wrong) { return ones(0, misaligned, wrong ? 1u : 0u); }
bool unwritten_shared(bool wrong) { return ones(0, wrong ? forgets_to_write<true> : forgets_to_write<false>); }

bool missing_async_wait(bool wrong) {
  const CudaStream stream;
  const DeviceArray<float> in(stream, std::vector<float>(4 * threads, 1.0f));
  const DeviceArray<float> out(threads);
  const auto kernel = wrong ? copies_late<true> : copies_late<false>;
  if (!launch(stream, {"copies_late"}, {.block_x = threads}, kernel, in.data(), out.data()).ok()) return false;
  for (const float value : out.read(stream)) {
    if (!(value == 1.0f)) return false;
  }
  return true;
}

}  // namespace sluice::planted
