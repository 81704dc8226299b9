// Split-KV attention: what the kernels that look at pages hand to the one that adds them up.
#pragma once

#include <cuda_runtime.h>

#include "gpu/kernels/attention_page.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/q8_rows.h"
#include "gpu/launch.h"

namespace sluice::gpu {

// The tokens and spans of a call of few tokens, handed over as arguments: kernels need not fetch them from the host's
// memory, where a look-up takes longer than a page. A graph is replayed with other tables, so what is captured reads
// those of the call.
struct Tables {
  bool used;  // else those of the call
  TokenSlot tokens[decode_tokens];
  KvSpan spans[decode_tokens];  // of each token
};

// Reads the tables of the call, which the host reaches.
Tables tables_of(cudaStream_t stream, const AttentionCall& call);

SLUICE_DEVICE TokenSlot slot_of(const AttentionCall& call, const Tables& tables, uint32_t token) {
  return tables.used ? tables.tokens[token] : call.tokens[token];
}
SLUICE_DEVICE KvSpan span_of(const AttentionCall& call, const Tables& tables, uint32_t token, uint32_t seq) {
  return tables.used ? tables.spans[token] : call.spans[seq];
}

// Pages [first, first + n) of every span, counted from the span's first page, and where their results go. For each row
// all pages that it may see have one, with l = 0 and O = 0 where it sees no cell after all.
struct PagePart {
  uint32_t first, n;
  float* partials;  // n x n_tokens x n_heads x (head_dim + 2): m, l, O
};

SLUICE_DEVICE uint64_t state_size(const AttentionCall& call) { return uint64_t{call.head_dim} + 2; }

SLUICE_DEVICE float* partial_of(const AttentionCall& call, const PagePart& part, uint32_t page, uint32_t token,
                                uint32_t head) {
  return part.partials + ((uint64_t{page} * call.n_tokens + token) * call.n_heads + head) * state_size(call);
}

// Pages of a part on tensor cores: f16, 64 tokens to a page, heads of 64, 128 or 256.
bool attention_pages_serves(const AttentionCall& call);
Status attention_pages(cudaStream_t stream, const LaunchInfo& counted, const AttentionCall& call, const Tables& tables,
                       const PagePart& part, uint32_t pages, const KernelContext& context);

// Where q8 activations of what was attended to go: tokens in rows; null: nowhere.
struct Q8Out {
  std::byte* rows;
  Q8Layout layout;
};

// Adds the pages of a part, in their order, to the states of all rows. What is finished is quantized, too, where that
// is wanted.
Status attention_merge(cudaStream_t stream, const AttentionCall& call, const Tables& tables, const PagePart& part,
                       uint32_t pages, const Q8Out& quantized);

}  // namespace sluice::gpu
