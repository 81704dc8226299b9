// Rotary positions: the table of cosines and sines of a step, and the rotation of heads by it.
//
// Table: 4 bytes written a value, angles, cosine and sine in double; a few hundred values a token, bound by
// the launch (and by double arithmetic on cards that have little, in prompts). Rotation: 8 bytes and 3 flops
// a value, bound by memory for many tokens, by the launch for few.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/rope.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 128;

SLUICE_KERNEL void rope_table_kernel(RopeTableCall call) {
  take_turn();
  const uint32_t half = call.n_rot / 2;
  const uint64_t p = uint64_t{block_x()} * threads + thread_x();
  if (p >= uint64_t{call.n_tokens} * half) return;
  const uint64_t token = p / half, i = p % half;
  const double angle = static_cast<double>(call.positions[token]) * static_cast<double>(call.freqs[i]);
  const auto scale = static_cast<double>(call.scale);
  float* out = call.out + token * call.n_rot;
  out[i] = static_cast<float>(cos(angle) * scale);
  out[half + i] = static_cast<float>(sin(angle) * scale);
}

// A thread has one pair of one head.
SLUICE_KERNEL void rope_kernel(RopeCall call) {
  take_turn();
  const uint32_t half = call.n_rot / 2;
  const uint64_t p = uint64_t{block_x()} * threads + thread_x();
  if (p >= uint64_t{call.n_tokens} * call.n_heads * half) return;
  const uint64_t head = p / half;
  const auto i = static_cast<uint32_t>(p % half);
  float* x = call.x + head * call.head_dim;
  const RotatedPair pair = rotated_pair(call, x, call.table + head / call.n_heads * call.n_rot, i);
  x[pair.first] = pair.a;
  x[pair.second] = pair.b;
}

}  // namespace

Status run(cudaStream_t stream, const RopeTableCall& call, const KernelContext&) {
  const uint64_t n = uint64_t{call.n_tokens} * (call.n_rot / 2);
  if (n == 0) return {};
  const LaunchShape shape{.grid_x = blocks_for(n, threads), .block_x = threads, .early = true};
  return launch(stream, launch_info("rope_table", call), shape, rope_table_kernel, call);
}

Status run(cudaStream_t stream, const RopeCall& call, const KernelContext&) {
  const uint64_t n = uint64_t{call.n_tokens} * call.n_heads * (call.n_rot / 2);
  if (n == 0) return {};
  const LaunchShape shape{.grid_x = blocks_for(n, threads), .block_x = threads, .early = true};
  return launch(stream, launch_info("rope", call), shape, rope_kernel, call);
}

}  // namespace sluice::gpu
