#include "cpu/kernels/declare.h"
#include "cpu/kernels/vector.h"

namespace sluice::cpu::SLUICE_ISA {
namespace {

template <class T>
void store_row(std::byte* page, uint64_t row, const float* x, uint32_t n) {
  T* out = reinterpret_cast<T*>(page) + row * n;
  uint32_t i = 0;
  for (; i + lanes <= n; i += lanes) store(out + i, load(x + i));
  if (i < n) store_part(out + i, load_part(x + i, n - i), n - i);
}

template <class T>
void append(const KvAppendCall& call, Share share) {
  const Part rows = part_of(uint64_t{call.n_tokens} * call.n_kv_heads, share, 1);
  for (uint64_t r = rows.begin; r < rows.end; ++r) {
    const TokenSlot& slot = call.tokens[r / call.n_kv_heads];
    const KvSpan& span = call.spans[slot.seq];
    const uint32_t page = slot.cell / call.page_tokens;
    if (page < span.first_page || page - span.first_page >= span.n_pages) continue;
    const uint64_t row = r % call.n_kv_heads * call.page_tokens + slot.cell % call.page_tokens;
    const uint64_t from = r * call.head_dim;
    store_row<T>(span.k_pages[page - span.first_page], row, call.k + from, call.head_dim);
    store_row<T>(span.v_pages[page - span.first_page], row, call.v + from, call.head_dim);
  }
}

}  // namespace

void kv_append(const KvAppendCall& call, Share share) {
  if (call.type == KvType::f16) append<uint16_t>(call, share);
  else append<float>(call, share);
}

}  // namespace sluice::cpu::SLUICE_ISA
