// The one way to launch a kernel.
//
//   launch(stream, {"rms_norm", bytes, flops}, {.grid_x = rows, .block_x = 256}, rms_norm_kernel, x, out, n);
//
// Arguments are passed by value, converted to the kernel's parameters, and must be trivially copyable. The call
// returns at once; what the kernel itself does wrong shows at a later call, as CUDA has it. A launch that is
// refused is a Status that names the kernel.
//
// Threads: any; launches on one stream by one thread at a time.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <tuple>
#include <type_traits>

#include "sluice/status.h"

namespace sluice::gpu {

struct LaunchShape {
  uint32_t grid_x = 1, grid_y = 1, grid_z = 1;
  uint32_t block_x = 32, block_y = 1;  // together a multiple of 32, at most 1024
  uint32_t shared_bytes = 0;           // dynamic shared memory of a block
  // May begin while the kernel before it in the stream still runs, where the device has that (Hopper and later): all of
  // its threads call wait_for_previous() before they touch what a kernel may have written or may still read.
  bool early = false;
};

// What a launch moves and computes, for the profiler; `name` must live forever.
struct LaunchInfo {
  const char* name;
  uint64_t bytes = 0, flops = 0;
};

// What the calling thread has launched since it last cleared this.
struct LaunchTotals {
  uint64_t launches = 0, bytes = 0, flops = 0;
};
inline LaunchTotals& launch_totals() {
  static thread_local LaunchTotals totals;
  return totals;
}

// CUDA launches more than this only where the kernel was allowed to.
inline constexpr uint32_t plain_shared_bytes = 48 * 1024;

// The error of a launch that CUDA refused. Without fmt, whose headers nvcc does not pass.
inline Status launch_refused(const LaunchInfo& info, const LaunchShape& shape, cudaError_t why) {
  const auto by = [](std::initializer_list<uint32_t> sizes) {
    std::string text;
    for (const uint32_t size : sizes) text.append(text.empty() ? "" : "x").append(std::to_string(size));
    return text;
  };
  return Status(Code::unavailable, std::string("kernel ") + info.name + ": launch of " +
                                       by({shape.grid_x, shape.grid_y, shape.grid_z}) + " blocks of " +
                                       by({shape.block_x, shape.block_y}) + " threads, " + by({shape.shared_bytes}) +
                                       " bytes shared: " + cudaGetErrorString(why));
}

// A launch with its arguments packed into a tuple of the kernel's own parameter types.
template <class... P>
cudaError_t launch_packed(cudaStream_t stream, const char* name, const LaunchShape& shape, void (*kernel)(P...),
                          std::tuple<P...>& arguments);

template <class... P, class... A>
Status launch(cudaStream_t stream, const LaunchInfo& info, const LaunchShape& shape, void (*kernel)(P...),
              A... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "a kernel takes as many arguments as it has parameters");
  static_assert((std::is_trivially_copyable_v<P> && ...), "kernels take plain values");
  if (shape.grid_x == 0 || shape.grid_y == 0 || shape.grid_z == 0) return {};  // nothing to do
  std::tuple<P...> packed(static_cast<P>(arguments)...);
  const cudaError_t result = launch_packed(stream, info.name, shape, kernel, packed);
  if (result != cudaSuccess) return launch_refused(info, shape, result);
  LaunchTotals& totals = launch_totals();
  totals.launches += 1;
  totals.bytes += info.bytes;
  totals.flops += info.flops;
  return {};
}

}  // namespace sluice::gpu

#if defined(__CUDACC__)
#include "gpu/launch_cuda.h"
#else
#include <sluice_standin/launch.h>
#endif
