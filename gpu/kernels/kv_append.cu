// Keys and values of a batch into their pages, as f16 or f32.
//
// Bytes: 6 (f16) or 8 a value. No flops. Bound by the launch for few tokens, by memory for many. The tables
// of tokens, spans and pages may lie in host memory: a block reads its entries once, for one token.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/kv_place.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 256;

template <class T>
SLUICE_KERNEL void kv_append_kernel(KvAppendCall call) {
  take_turn();
  SLUICE_SHARED(KvPlace, place, [1]);
  if (thread_x() == 0) place[0] = place_of(call, block_x());
  block_barrier();
  if (place[0].k == nullptr) return;
  const uint32_t n = call.n_kv_heads * call.head_dim;
  for (uint32_t i = thread_x(); i < n; i += threads) {
    const uint64_t from = uint64_t{block_x()} * n + i, to = place_in_page(call, place[0].cell, i);
    store_value(reinterpret_cast<T*>(place[0].k) + to, call.k[from]);
    store_value(reinterpret_cast<T*>(place[0].v) + to, call.v[from]);
  }
}

}  // namespace

Status run(cudaStream_t stream, const KvAppendCall& call, const KernelContext&) {
  if (call.n_tokens == 0 || call.n_kv_heads == 0) return {};
  const LaunchShape shape{.grid_x = call.n_tokens, .block_x = threads, .early = true};
  const LaunchInfo counted = launch_info("kv_append", call);
  if (call.type == KvType::f16) return launch(stream, counted, shape, kv_append_kernel<uint16_t>, call);
  return launch(stream, counted, shape, kv_append_kernel<float>, call);
}

}  // namespace sluice::gpu
