// Adds the pages' (m, l, O) up: for each row and column o = o * e^(m - m') + O * e^(m_page - m'), m' the larger m, page
// by page in their order.
//
// Bytes: 4 * (head_dim + 2) a page and row. Bound by device memory for many pages, by the latency of two table
// look-ups and a launch for few.
//
// The order is that of the pages, but only a product and a sum of each page wait for the page before it: a warp makes
// the factors of 32 pages at once, since the largest m so far does not depend on the order in which it is found.
#include <cmath>

#include "gpu/kernels/attention_parts.h"
#include "gpu/kernels/attention_tile.h"
#include "gpu/kernels/quantize_block.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t pages_at_once = 32;

// Pages [begin, end) of the part that a row may see.
struct Seen {
  uint32_t begin, end;
};

SLUICE_DEVICE Seen seen_pages(const AttentionCall& call, const Tables& tables, const PagePart& part, uint32_t token,
                              uint32_t head) {
  QueryRow row{slot_of(call, tables, token), token, head, 0, 0};
  const KvSpan span = span_of(call, tables, token, row.slot.seq);
  find_visible(call, span, row);
  if (row.begin >= row.end) return {0, 0};
  const uint32_t origin = span.first_page + part.first;
  const uint32_t first = row.begin / call.page_tokens, last = (row.end - 1) / call.page_tokens + 1;
  const uint32_t begin = first > origin ? first - origin : 0, end = last > origin ? last - origin : 0;
  return {begin, end < part.n ? end : part.n};
}

// Lane i has what belongs to page i of 32; `m`, `l` are those of all pages so far.
struct PageFactors {
  Factors factors;
  float l;
};

SLUICE_DEVICE PageFactors factors_of(const PageSums& page, float& m) {
  const float mine = page.l == 0.0f ? -INFINITY : page.m;
  float most = fmaxf(m, mine);
  SLUICE_UNROLL
  for (uint32_t step = 1; step < 32; step *= 2)
    most = fmaxf(most, shuffle(most, lane() >= step ? lane() - step : lane()));
  const float left = shuffle(most, lane() == 0 ? 0 : lane() - 1), before = lane() == 0 ? m : left;
  m = shuffle(most, 31);
  if (page.l == 0.0f) return {{1.0f, 0.0f}, 0.0f};
  return {{expf(before - most), expf(mine - most)}, page.l};
}

// What 32 pages have for a lane: the column of each, and m and l of one. Zeros beyond the last page.
struct Fetched {
  float o[pages_at_once];
  PageSums sums;
};

SLUICE_DEVICE PageSums sums_of(const AttentionCall& call, const PagePart& part, uint32_t page, const Seen& seen,
                               uint32_t token, uint32_t head) {
  if (page >= seen.end) return {-INFINITY, 0.0f};
  const float* partial = partial_of(call, part, page, token, head);
  return {partial[0], partial[1]};
}

SLUICE_DEVICE Fetched fetch(const AttentionCall& call, const PagePart& part, uint32_t begin, const Seen& seen,
                            uint32_t token, uint32_t head, uint32_t d) {
  Fetched fetched;
  const float* at = partial_of(call, part, begin, token, head) + 2 + d;
  const uint64_t step = uint64_t{call.n_tokens} * call.n_heads * state_size(call);
  SLUICE_UNROLL
  for (uint32_t i = 0; i < pages_at_once; ++i) fetched.o[i] = begin + i < seen.end ? at[i * step] : 0.0f;
  fetched.sums = sums_of(call, part, begin + lane(), seen, token, head);
  return fetched;
}

// A lane has a column of a row; with a state the warp has all columns in turn, since it also writes m and l.
SLUICE_KERNEL void attention_merge_kernel(AttentionCall call, Tables tables, PagePart part, Q8Out quantized) {
  const uint32_t token = block_x() / call.n_heads, head = block_x() % call.n_heads;
  const Seen seen = seen_pages(call, tables, part, token, head);  // of tables, which no kernel just before writes
  wait_for_previous();
  let_next_begin();  // not before: its blocks would crowd beside those of attention
  float* state = call.state == nullptr ? nullptr : call.state + uint64_t{block_x()} * state_size(call);
  const PageSums before = call.start ? PageSums{-INFINITY, 0.0f} : PageSums{state[0], state[1]};
  warp_barrier();  // all have read the state
  PageSums sums = before;
  for (uint32_t first = block_y() * 32; first < call.head_dim; first += 32 * grid_y()) {
    const uint32_t column = first + lane(), d = column < call.head_dim ? column : call.head_dim - 1;
    sums = before;
    float o = call.start || column >= call.head_dim ? 0.0f : state[2 + d];
    Fetched next = fetch(call, part, seen.begin, seen, token, head, d);
    for (uint32_t begin = seen.begin; begin < seen.end; begin += pages_at_once) {
      const Fetched now = next;
      next = fetch(call, part, begin + pages_at_once, seen, token, head, d);
      const PageFactors mine = factors_of(now.sums, sums.m);
      SLUICE_UNROLL
      for (uint32_t i = 0; i < pages_at_once; ++i) {
        const Factors factors{shuffle(mine.factors.old_o, i), shuffle(mine.factors.page_o, i)};
        sums.l = fmaf(sums.l, factors.old_o, shuffle(mine.l, i) * factors.page_o);
        o = merge_value(factors, o, now.o[i]);
      }
    }
    if (column >= call.head_dim) continue;
    if (state != nullptr) state[2 + d] = o;
    if (!call.finish) continue;
    const float value = finished(o, sums.l);
    call.out[uint64_t{block_x()} * call.head_dim + d] = value;
    if (quantized.rows != nullptr)  // heads are then whole blocks
      quantize_one(value, quantized.rows + token * quantized.layout.row_bytes, quantized.layout,
                   uint64_t{head} * call.head_dim + d);
  }
  if (state == nullptr || lane() != 0) return;
  state[0] = sums.m;
  state[1] = sums.l;
}

}  // namespace

Tables tables_of(cudaStream_t stream, const AttentionCall& call) {
  Tables tables{};
  cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  if (call.n_tokens > decode_tokens || call.most_pages > 0 ||
      cudaStreamIsCapturing(stream, &capturing) != cudaSuccess || capturing != cudaStreamCaptureStatusNone)
    return tables;
  tables.used = true;
  for (uint32_t t = 0; t < call.n_tokens; ++t) {
    tables.tokens[t] = call.tokens[t];
    tables.spans[t] = call.spans[call.tokens[t].seq];
  }
  return tables;
}

Status attention_merge(cudaStream_t stream, const AttentionCall& call, const Tables& tables, const PagePart& part,
                       uint32_t pages, const Q8Out& quantized) {
  const uint64_t bytes =
      uint64_t{pages + 1} * call.n_tokens * call.n_heads * (uint64_t{call.head_dim} + 2) * sizeof(float);
  const LaunchShape shape{.grid_x = call.n_tokens * call.n_heads,
                          .grid_y = call.state == nullptr ? (call.head_dim + 31) / 32 : 1,
                          .block_x = 32,
                          .early = true};
  return launch(stream, {"attention_merge", bytes, 0}, shape, attention_merge_kernel, call, tables, part, quantized);
}

}  // namespace sluice::gpu
