// Keys and values of a batch into their pages, as f16 or f32.
//
// Bytes: 6 (f16) or 8 a value. No flops. Bound by the launch for few tokens, by memory for many. The tables
// of tokens, spans and pages lie in host memory: a block reads its entries once, for one token.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 256;

SLUICE_DEVICE void store_value(uint16_t* at, float x) { *at = float_to_half_bits(x); }
SLUICE_DEVICE void store_value(float* at, float x) { *at = x; }

// Where a token goes; null: its page is not in the span.
struct Places {
  std::byte *k, *v;
  uint32_t cell;  // of the page
};

SLUICE_DEVICE Places places_of(const KvAppendCall& call, uint32_t token) {
  const TokenSlot slot = call.tokens[token];
  const KvSpan span = call.spans[slot.seq];
  const uint32_t page = slot.cell / call.page_tokens, cell = slot.cell % call.page_tokens;
  if (page < span.first_page || page - span.first_page >= span.n_pages) return {nullptr, nullptr, cell};
  return {span.k_pages[page - span.first_page], span.v_pages[page - span.first_page], cell};
}

template <class T>
SLUICE_KERNEL void kv_append_kernel(KvAppendCall call) {
  SLUICE_SHARED(Places, places, [1]);
  if (thread_x() == 0) places[0] = places_of(call, block_x());
  block_barrier();
  if (places[0].k == nullptr) return;
  const uint32_t n = call.n_kv_heads * call.head_dim;
  for (uint32_t i = thread_x(); i < n; i += threads) {
    const uint64_t from = uint64_t{block_x()} * n + i;
    const uint64_t to =
        (uint64_t{i / call.head_dim} * call.page_tokens + places[0].cell) * call.head_dim + i % call.head_dim;
    store_value(reinterpret_cast<T*>(places[0].k) + to, call.k[from]);
    store_value(reinterpret_cast<T*>(places[0].v) + to, call.v[from]);
  }
}

}  // namespace

Status run(cudaStream_t stream, const KvAppendCall& call, const KernelContext&) {
  if (call.n_tokens == 0 || call.n_kv_heads == 0) return {};
  const LaunchShape shape{.grid_x = call.n_tokens, .block_x = threads};
  const LaunchInfo counted = launch_info("kv_append", call);
  if (call.type == KvType::f16) return launch(stream, counted, shape, kv_append_kernel<uint16_t>, call);
  return launch(stream, counted, shape, kv_append_kernel<float>, call);
}

}  // namespace sluice::gpu
