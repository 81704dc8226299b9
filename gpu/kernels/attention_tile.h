// Tiles of query rows: which rows a block of an attention kernel works on, and which pages they may see.
#pragma once

#include "gpu/kernels/attention_page.h"

namespace sluice::gpu {

// Cells of the span that a token may see, before its ancestors are looked at.
SLUICE_DEVICE void find_visible(const AttentionCall& call, const KvSpan& span, QueryRow& row) {
  const uint64_t own_end = uint64_t{row.slot.cell} + 1;
  uint64_t begin = call.window > 0 && own_end > call.window ? own_end - call.window : 0, end = own_end;
  if (call.tree && uint64_t{span.n_before} + 64 > end) end = uint64_t{span.n_before} + 64;
  const uint64_t first = uint64_t{span.first_page} * call.page_tokens;
  const uint64_t last = first + uint64_t{span.n_pages} * call.page_tokens;
  if (begin < first) begin = first;
  if (end > last) end = last;
  row.begin = static_cast<uint32_t>(begin);
  row.end = static_cast<uint32_t>(end > begin ? end : begin);
}

// Query rows of a kv head are numbered token * group + head within the group; a block's tile
// has R of them.
SLUICE_DEVICE uint32_t group_of(const AttentionCall& call) { return call.n_heads / call.n_kv_heads; }
SLUICE_DEVICE uint32_t kv_head_of_block(const AttentionCall& call) { return block_x() % call.n_kv_heads; }

SLUICE_DEVICE uint64_t index_of(const AttentionCall& call, const QueryRow& row) {
  return uint64_t{row.token} * call.n_heads + row.head;
}
SLUICE_DEVICE const float* query_of(const AttentionCall& call, const QueryRow& row) {
  return call.q + index_of(call, row) * call.head_dim;
}
// m, l, O
SLUICE_DEVICE float* state_of(const AttentionCall& call, const QueryRow& row) {
  return call.state + index_of(call, row) * (uint64_t{call.head_dim} + 2);
}

// The first row of the block's tile: the last tiles, which see most, begin first.
SLUICE_DEVICE uint32_t first_tile_row(const AttentionCall& call, uint32_t R) {
  return (grid_x() - 1 - block_x()) / call.n_kv_heads * R;
}
SLUICE_DEVICE uint32_t n_tile_rows(const AttentionCall& call, uint32_t R) {
  const uint32_t rest = call.n_tokens * group_of(call) - first_tile_row(call, R);
  return rest < R ? rest : R;
}

// The block's rows into shared memory, by its first R threads. A barrier must follow.
SLUICE_DEVICE void load_rows(const AttentionCall& call, uint32_t R, QueryRow* rows) {
  if (thread_x() >= n_tile_rows(call, R)) return;
  const uint32_t group = group_of(call), i = first_tile_row(call, R) + thread_x();
  QueryRow row{call.tokens[i / group], i / group, kv_head_of_block(call) * group + i % group, 0, 0};
  find_visible(call, call.spans[row.slot.seq], row);
  rows[thread_x()] = row;
}

// Their queries, with zeros where there is none.
template <uint32_t R>
SLUICE_DEVICE void load_queries(const AttentionCall& call, const HeadShape& shape, const QueryRow* rows, float* q) {
  const uint32_t n = n_tile_rows(call, R);
  for (uint32_t i = thread_x(); i < R * shape.padded; i += attention_threads) {
    const uint32_t r = i / shape.padded, d = i % shape.padded;
    q[i] = r < n && d < call.head_dim ? query_of(call, rows[r])[d] : 0.0f;
  }
}

// The run that begins with row `first` of n.
SLUICE_DEVICE Run next_run(const AttentionCall& call, const QueryRow* rows, uint32_t first, uint32_t n) {
  Run run{first, first, UINT32_MAX, 0};
  for (; run.last < n; ++run.last) {
    const QueryRow& row = rows[run.last];
    if (row.slot.seq != rows[first].slot.seq || (call.tree && row.token != rows[first].token)) break;
    if (row.begin >= row.end) continue;
    run.begin = row.begin < run.begin ? row.begin : run.begin;
    run.end = row.end > run.end ? row.end : run.end;
  }
  return run;
}

// Whether some row of the run may see a cell of [begin, end): of sliding windows, pages between may be gone.
SLUICE_DEVICE bool any_sees(const QueryRow* rows, const Run& run, uint32_t begin, uint32_t end) {
  for (uint32_t r = run.first; r < run.last; ++r)
    if (rows[r].begin < end && rows[r].end > begin && rows[r].begin < rows[r].end) return true;
  return false;
}

// Page `index` of the sequence, whose cells are cut to those of the run.
template <class T>
SLUICE_DEVICE Page<T> page_of(const AttentionCall& call, const KvSpan& span, const Run& run, uint32_t index) {
  const uint64_t head = uint64_t{kv_head_of_block(call)} * call.page_tokens * call.head_dim;
  const uint32_t first = index * call.page_tokens;
  return {reinterpret_cast<const T*>(span.k_pages[index - span.first_page]) + head,
          reinterpret_cast<const T*>(span.v_pages[index - span.first_page]) + head, first,
          run.begin > first ? run.begin - first : 0,
          run.end - first < call.page_tokens ? run.end - first : call.page_tokens};
}

}  // namespace sluice::gpu
