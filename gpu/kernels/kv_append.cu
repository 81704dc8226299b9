// Keys and values of a batch into their pages, as f16 or f32.
//
// Bytes: 6 (f16) or 8 a value. No flops. Bound by the launch for few tokens, by memory for many. The tables
// of tokens, spans and pages lie in host memory: a block reads its entries once, for one head of one token.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 64;

SLUICE_DEVICE void store_value(uint16_t* at, float x) { *at = float_to_half_bits(x); }
SLUICE_DEVICE void store_value(float* at, float x) { *at = x; }

template <class T>
SLUICE_KERNEL void kv_append_kernel(KvAppendCall call) {
  const uint32_t head = block_x() % call.n_kv_heads;
  const TokenSlot slot = call.tokens[block_x() / call.n_kv_heads];
  const KvSpan span = call.spans[slot.seq];
  const uint32_t page = slot.cell / call.page_tokens;
  if (page < span.first_page || page - span.first_page >= span.n_pages) return;
  const uint64_t row = uint64_t{head} * call.page_tokens + slot.cell % call.page_tokens;
  const uint64_t from = uint64_t{block_x()} * call.head_dim;
  T* k = reinterpret_cast<T*>(span.k_pages[page - span.first_page]) + row * call.head_dim;
  T* v = reinterpret_cast<T*>(span.v_pages[page - span.first_page]) + row * call.head_dim;
  for (uint32_t d = thread_x(); d < call.head_dim; d += threads) {
    store_value(k + d, call.k[from + d]);
    store_value(v + d, call.v[from + d]);
  }
}

}  // namespace

Status run(cudaStream_t stream, const KvAppendCall& call, const KernelContext&) {
  if (call.n_tokens == 0 || call.n_kv_heads == 0) return {};
  const LaunchShape shape{.grid_x = call.n_tokens * call.n_kv_heads, .block_x = threads};
  const LaunchInfo counted = launch_info("kv_append", call);
  if (call.type == KvType::f16) return launch(stream, counted, shape, kv_append_kernel<uint16_t>, call);
  return launch(stream, counted, shape, kv_append_kernel<float>, call);
}

}  // namespace sluice::gpu
