// Where new keys and values go.
#pragma once

#include "core/kernel.h"
#include "gpu/kernels/formats.h"

namespace sluice::gpu {

SLUICE_DEVICE void store_value(uint16_t* at, float x) { *at = float_to_half_bits(x); }
SLUICE_DEVICE void store_value(float* at, float x) { *at = x; }

// The pages of a token; null: its page is not in the span.
struct KvPlace {
  std::byte *k, *v;
  uint32_t cell;  // of the page
};

SLUICE_DEVICE KvPlace place_of(const KvAppendCall& call, uint32_t token) {
  const TokenSlot slot = call.tokens[token];
  const KvSpan span = call.spans[slot.seq];
  const uint32_t page = slot.cell / call.page_tokens, cell = slot.cell % call.page_tokens;
  if (page < span.first_page || page - span.first_page >= span.n_pages) return {nullptr, nullptr, cell};
  return {span.k_pages[page - span.first_page], span.v_pages[page - span.first_page], cell};
}

// Value i of a token's keys or values within a page.
SLUICE_DEVICE uint64_t place_in_page(const KvAppendCall& call, uint32_t cell, uint32_t i) {
  return (uint64_t{i / call.head_dim} * call.page_tokens + cell) * call.head_dim + i % call.head_dim;
}

}  // namespace sluice::gpu
