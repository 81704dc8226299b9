#include <sluice_standin/control.h>

#include "gpu/kernels/intrinsics.h"
#include "gpu/launch.h"
#include "tests/planted/planted.h"
#include "tests/support/cuda_buffers.h"

namespace sluice::planted {
namespace {

using gpu::launch;
using gpu::LaunchShape;
using testing::CudaStream;
using testing::DeviceArray;

constexpr uint32_t threads = 64;

// Each thread reads what its neighbour wrote. Fibers happen to run so that the result is right even without barriers
// where the neighbour comes before.
template <bool wrong>
SLUICE_KERNEL void neighbour(uint32_t* out) {
  using namespace gpu;
  SLUICE_SHARED(uint32_t, values, [threads]);
  const uint32_t i = thread_x();
  values[i] = i;
  if constexpr (!wrong) block_barrier();
  out[i] = values[i == 0 ? 0 : i - 1];
}

template <bool wrong>
SLUICE_KERNEL void neighbour_in_warp(uint32_t* out) {
  using namespace gpu;
  SLUICE_SHARED(uint32_t, values, [threads]);
  const uint32_t i = thread_x();
  values[i] = i;
  (void)shuffle(i, 0);  // orders no memory
  if constexpr (!wrong) warp_barrier();
  out[i] = values[lane() == 0 ? i : i - 1];
}

template <bool wrong>
SLUICE_KERNEL void half_a_barrier(uint32_t* out) {
  using namespace gpu;
  if (!wrong || thread_x() < 32) block_barrier();
  out[thread_x()] = thread_x();
}

template <bool wrong>
SLUICE_KERNEL void leaves_early(uint32_t* out) {
  using namespace gpu;
  out[thread_x()] = thread_x();
  if (wrong && thread_x() == 5) return;
  (void)warp_sum(static_cast<int32_t>(thread_x()));
}

// What is launched early and does not wait reads what may not be there yet.
template <bool wrong>
SLUICE_KERNEL void in_turn(uint32_t* out) {
  using namespace gpu;
  if (!wrong || thread_x() != 5) wait_for_previous();
  out[thread_x()] = thread_x();
}

// What is launched early copies what a kernel before it may still write.
template <bool wrong>
SLUICE_KERNEL void copies_early(uint32_t* out) {
  using namespace gpu;
  SLUICE_SHARED(uint32_t, values, [threads]);
  const uint32_t i = thread_x();
  if constexpr (!wrong) wait_for_previous();
  if (i < threads / 4) async_copy16(values + 4 * i, out + 4 * i);
  if constexpr (wrong) wait_for_previous();
  async_commit();
  async_wait<0>();
  block_barrier();
  out[i] = values[i] + i;
}

bool run(void (*kernel)(uint32_t*), uint32_t offset, uint32_t warp_mask, bool early = false) {
  const CudaStream stream;
  const DeviceArray<uint32_t> out(threads);
  const Status status = launch(stream, {"planted"}, {.block_x = threads, .early = early}, kernel, out.data());
  if (!status.ok() || cudaStreamSynchronize(stream) != cudaSuccess) return false;
  const std::vector<uint32_t> got = out.read(stream);
  for (uint32_t i = 0; i < threads; ++i) {
    if (got[i] != ((i & warp_mask) == 0 ? i : i - offset)) return false;
  }
  return true;
}

bool run_early_copies(void (*kernel)(uint32_t*)) {
  const CudaStream stream;
  const DeviceArray<uint32_t> out(stream, std::vector<uint32_t>(threads, 7));
  standin::forbid_early(out.data(), threads * sizeof(uint32_t));
  const Status status = launch(stream, {"planted"}, {.block_x = threads, .early = true}, kernel, out.data());
  const bool done = status.ok() && cudaStreamSynchronize(stream) == cudaSuccess;
  standin::allow_early();
  return done && out.read(stream)[threads - 1] == threads - 1 + 7;
}

}  // namespace

bool early_copy(bool wrong) { return run_early_copies(wrong ? copies_early<true> : copies_early<false>); }
bool missing_block_barrier(bool wrong) { return run(wrong ? neighbour<true> : neighbour<false>, 1, threads - 1); }
bool missing_warp_barrier(bool wrong) { return run(wrong ? neighbour_in_warp<true> : neighbour_in_warp<false>, 1, 31); }
bool divergent_barrier(bool wrong) { return run(wrong ? half_a_barrier<true> : half_a_barrier<false>, 0, 0); }
bool exited_lane(bool wrong) { return run(wrong ? leaves_early<true> : leaves_early<false>, 0, 0); }
bool missing_wait_for_previous(bool wrong) { return run(wrong ? in_turn<true> : in_turn<false>, 0, 0, true); }

}  // namespace sluice::planted
