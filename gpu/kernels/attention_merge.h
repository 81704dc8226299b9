// Adds up what pages have for a row of split-KV attention: o = o * e^(m - m') + O * e^(m_page - m'), m' the larger m,
// for each column, page by page in their order.
//
// The order is that of the pages, but only a product and a sum of each page wait for the page before it: a warp makes
// the factors of 32 pages at once, since the largest m so far does not depend on the order in which it is found. So a
// row's bits depend neither on how many columns a lane has nor on how many pages are fetched at once.
#pragma once

#include <cmath>

#include "gpu/kernels/attention_parts.h"
#include "gpu/kernels/attention_tile.h"
#include "gpu/kernels/quantize_block.h"

namespace sluice::gpu {

// Pages [begin, end) of the part that a row may see.
struct Seen {
  uint32_t begin, end;
};

// first_page: of the row's span.
SLUICE_DEVICE Seen seen_pages(const AttentionCall& call, const PagePart& part, const QueryRow& row,
                              uint32_t first_page) {
  if (row.begin >= row.end) return {0, 0};
  const uint32_t origin = first_page + part.first;
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

// A row: where a warp finds it and what it sees.
struct MergeRow {
  uint32_t token, head;
  Seen seen;
};

// Zero beyond the last page.
SLUICE_DEVICE PageSums sums_of(const AttentionCall& call, const PagePart& part, const MergeRow& row, uint32_t page) {
  if (page >= row.seen.end) return {-INFINITY, 0.0f};
  const float* partial = partial_of(call, part, page, row.token, row.head);
  return {partial[0], partial[1]};
}

// What some pages have for a lane's C columns.
template <uint32_t C>
struct Fetched {
  static constexpr uint32_t pages = 32 / C;
  float o[pages][C];
};

// A lane's columns, 32 apart from each other: a warp has them without gaps.
template <uint32_t C>
struct Columns {
  uint32_t at[C];  // those beyond the head are its last
  bool inside[C];
};

template <uint32_t C>
SLUICE_DEVICE Columns<C> columns_from(const AttentionCall& call, uint32_t first) {
  Columns<C> columns;
  SLUICE_UNROLL
  for (uint32_t c = 0; c < C; ++c) {
    const uint32_t column = first + 32 * c + lane();
    columns.inside[c] = column < call.head_dim;
    columns.at[c] = columns.inside[c] ? column : call.head_dim - 1;
  }
  return columns;
}

template <uint32_t C>
SLUICE_DEVICE Fetched<C> fetch(const AttentionCall& call, const PagePart& part, const MergeRow& row, uint32_t begin,
                               const Columns<C>& columns) {
  Fetched<C> fetched;
  const float* at = partial_of(call, part, begin, row.token, row.head) + 2;
  const uint64_t step = uint64_t{call.n_tokens} * call.n_heads * state_size(call);
  SLUICE_UNROLL
  for (uint32_t i = 0; i < Fetched<C>::pages; ++i) SLUICE_UNROLL
  for (uint32_t c = 0; c < C; ++c) fetched.o[i][c] = begin + i < row.seen.end ? at[i * step + columns.at[c]] : 0.0f;
  return fetched;
}

// All pages onto what there is: `o` of the lane's columns and the row's m and l.
template <uint32_t C>
SLUICE_DEVICE void add_pages(const AttentionCall& call, const PagePart& part, const MergeRow& row,
                             const Columns<C>& columns, PageSums& sums, float (&o)[C]) {
  const Seen seen = row.seen;
  Fetched<C> next = fetch(call, part, row, seen.begin, columns);
  PageSums next_sums = sums_of(call, part, row, seen.begin + lane());
  PageFactors mine{};
  for (uint32_t begin = seen.begin; begin < seen.end; begin += Fetched<C>::pages) {
    const Fetched<C> now = next;
    next = fetch(call, part, row, begin + Fetched<C>::pages, columns);
    const uint32_t place = C == 1 ? 0 : (begin - seen.begin) % 32;
    if (place == 0) {
      mine = factors_of(next_sums, sums.m);
      next_sums = sums_of(call, part, row, begin + 32 + lane());
    }
    SLUICE_UNROLL
    for (uint32_t i = 0; i < Fetched<C>::pages; ++i) {
      const Factors factors{shuffle(mine.factors.old_o, place + i), shuffle(mine.factors.page_o, place + i)};
      sums.l = fmaf(sums.l, factors.old_o, shuffle(mine.l, place + i) * factors.page_o);
      SLUICE_UNROLL
      for (uint32_t c = 0; c < C; ++c) o[c] = merge_value(factors, o[c], now.o[i][c]);
    }
  }
  // Pages that there are not up to a multiple of 32 add zero, which makes 0 of -0 once and for all.
  if (seen.begin >= seen.end || (seen.end - seen.begin) % 32 == 0) return;
  SLUICE_UNROLL
  for (uint32_t c = 0; c < C; ++c) o[c] = merge_value({1.0f, 0.0f}, o[c], 0.0f);
}

// By a warp: columns `first` to first + 32 * C, and so on each `step` columns further; with a state it has all of them,
// since it also writes m and l.
template <uint32_t C>
SLUICE_DEVICE void merge_row(const AttentionCall& call, const PagePart& part, const Q8Out& quantized,
                             const MergeRow& row, uint32_t first, uint32_t step) {
  const uint64_t index = uint64_t{row.token} * call.n_heads + row.head;
  float* state = call.state == nullptr ? nullptr : call.state + index * state_size(call);
  const PageSums before = call.start ? PageSums{-INFINITY, 0.0f} : PageSums{state[0], state[1]};
  warp_barrier();  // all have read the state
  PageSums sums = before;
  for (; first < call.head_dim; first += step) {
    const Columns<C> columns = columns_from<C>(call, first);
    float o[C];
    SLUICE_UNROLL
    for (uint32_t c = 0; c < C; ++c) o[c] = call.start || !columns.inside[c] ? 0.0f : state[2 + columns.at[c]];
    sums = before;
    add_pages(call, part, row, columns, sums, o);
    SLUICE_UNROLL
    for (uint32_t c = 0; c < C; ++c) {
      const uint32_t d = columns.at[c];
      if (!columns.inside[c]) continue;
      if (state != nullptr) state[2 + d] = o[c];
      if (!call.finish) continue;
      const float value = finished(o[c], sums.l);
      call.out[index * call.head_dim + d] = value;
      if (quantized.rows != nullptr)  // heads are then whole blocks
        quantize_one(value, quantized.rows + row.token * quantized.layout.row_bytes, quantized.layout,
                     uint64_t{row.head} * call.head_dim + d);
    }
  }
  if (state == nullptr || lane() != 0) return;
  state[0] = sums.m;
  state[1] = sums.l;
}

}  // namespace sluice::gpu
