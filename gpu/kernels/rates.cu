// Bytes: what read_memory is given, once. Bound by device memory: each thread has eight loads of 16 bytes under way.
#include "gpu/kernels/rates.h"

#include "gpu/kernels/intrinsics.h"
#include "gpu/launch.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 512, at_once = 8;

SLUICE_KERNEL void read_kernel(const std::byte* memory, uint64_t pieces, uint32_t* out) {
  const uint64_t step = uint64_t{grid_x()} * threads;
  uint32_t all = 0;
  for (uint64_t i = uint64_t{block_x()} * threads + thread_x(); i < pieces; i += at_once * step) {
    Vec16 v[at_once];
    SLUICE_UNROLL
    for (uint32_t j = 0; j < at_once; ++j) v[j] = load_nc16(memory + 16 * (i + j * step < pieces ? i + j * step : i));
    SLUICE_UNROLL
    for (uint32_t j = 0; j < at_once; ++j) all ^= v[j].words[0] ^ v[j].words[1] ^ v[j].words[2] ^ v[j].words[3];
  }
  for (uint32_t mask = 16; mask > 0; mask /= 2) all ^= shuffle_xor(all, mask);
  if (thread_x() == 0) atomic_add(out, all);
}

SLUICE_KERNEL void nothing_kernel() {}

}  // namespace

Status read_memory(cudaStream_t stream, const std::byte* memory, uint64_t bytes, uint32_t n_sms, uint32_t* out) {
  const uint64_t pieces = bytes / 16;
  if (pieces == 0) return {};
  const uint64_t most = (pieces + threads - 1) / threads;
  const LaunchShape shape{.grid_x = static_cast<uint32_t>(most < 4ull * n_sms ? most : 4ull * n_sms),
                          .block_x = threads};
  return launch(stream, {"read_memory", bytes, 0}, shape, read_kernel, memory, pieces, out);
}

Status do_nothing(cudaStream_t stream) { return launch(stream, {"nothing"}, LaunchShape{}, nothing_kernel); }

}  // namespace sluice::gpu
