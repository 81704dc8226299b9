// Attention of a few query rows to one page: the part that all attention kernels share.
//
// A block works on a tile of R rows (a token and a head each) that read one kv head. For one page it makes, for each
// row, the largest score m, the sum l of e^(score - m), and O, the sum of e^(score - m) * value. That does not depend
// on other pages, so pages may be shared out at will; merge_page adds them up in page order.
//
// Three steps with a barrier behind each: a thread has the score of a cell (with half of the rows); a warp has a
// row's maximum and sum, each lane every 32nd cell of the page; a thread has 16 bytes of the values of every g-th
// cell, and what the g groups have is added in their order. All orders are those of cells within the page, and a cell
// that a row does not see adds zero, so that a row's bits do not depend on the rest of the tile.
#pragma once

#include "core/kernel.h"
#include "gpu/kernels/intrinsics.h"

namespace sluice::gpu {

constexpr uint32_t attention_threads = 128, attention_warps = attention_threads / 32;

// How the values of a head are shared out; made on the host.
struct HeadShape {
  uint32_t chunks;       // of 16 bytes
  uint32_t padded;       // head_dim rounded up to whole chunks
  uint32_t cell_groups;  // threads with the same chunk
};

struct QueryRow {
  TokenSlot slot;
  uint32_t token, head;
  uint32_t begin, end;  // cells of the span that it may see, before its ancestors are looked at
};

struct PageSums {
  float m, l;
};

// The block's dynamic shared memory, in floats.
template <uint32_t R>
struct TileMemory {
  float* q;        // R x padded
  float* weights;  // page_tokens x R: scores, then e^(score - m)
  float* sums;     // cell_groups x R x padded
  float* o;        // R x padded: what the pages so far add up to; not in split-KV kernels
};

template <uint32_t R>
SLUICE_DEVICE TileMemory<R> tile_memory(float* shared, const HeadShape& shape, uint32_t page_tokens) {
  TileMemory<R> memory;
  memory.q = shared;
  memory.weights = memory.q + R * shape.padded;
  memory.sums = memory.weights + R * page_tokens;
  memory.o = memory.sums + shape.cell_groups * R * shape.padded;
  return memory;
}

// One page of one kv head. cells [begin, end) of it are those that some row may see.
template <class T>
struct Page {
  const T* keys;
  const T* values;
  uint32_t first_cell;
  uint32_t begin, end;
};

// Rows [first, last) of a tile that are worked on together: of one sequence, with a tree of one token.
struct Run {
  uint32_t first, last;
  uint32_t begin, end;  // cells that some of them may see
};

SLUICE_DEVICE float to_float(uint16_t bits) { return half_bits_to_float(bits); }
SLUICE_DEVICE float to_float(float value) { return value; }

SLUICE_DEVICE void unpack(const Vec16& v, float (&out)[8], uint16_t /*element*/) {
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 8; ++i) out[i] = half_bits_to_float(static_cast<uint16_t>(v.words[i / 2] >> (16 * (i % 2))));
}
SLUICE_DEVICE void unpack(const Vec16& v, float (&out)[4], float /*element*/) {
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 4; ++i) out[i] = __builtin_bit_cast(float, v.words[i]);
}

// 16 bytes of a head's values, zeros beyond them.
template <class T, uint32_t V>
SLUICE_DEVICE void load_chunk(const T* head, uint32_t chunk, uint32_t head_dim, float (&out)[V]) {
  if (head_dim % V == 0) return unpack(load16(head + chunk * V), out, T{});
  SLUICE_UNROLL
  for (uint32_t i = 0; i < V; ++i) out[i] = chunk * V + i < head_dim ? to_float(head[chunk * V + i]) : 0.0f;
}

SLUICE_DEVICE bool sees(const AttentionCall& call, const QueryRow& row, const KvSpan& span, uint32_t cell) {
  if (cell < row.begin || cell >= row.end) return false;
  if (!call.tree || cell < span.n_before) return true;
  return cell - span.n_before < 64 && (row.slot.ancestors >> (cell - span.n_before) & 1) != 0;
}

// Products of n queries with one key.
template <class T, uint32_t n>
SLUICE_DEVICE void dot_products(const T* key, const float* q, const HeadShape& shape, uint32_t head_dim,
                                float (&out)[n]) {
  constexpr uint32_t V = 16 / sizeof(T);
  float even[n] = {}, odd[n] = {};
  for (uint32_t chunk = 0; chunk < shape.chunks; ++chunk) {
    float k[V];
    load_chunk(key, chunk, head_dim, k);
    SLUICE_UNROLL
    for (uint32_t r = 0; r < n; ++r) SLUICE_UNROLL
    for (uint32_t i = 0; i < V; i += 4) {
      float four[4];
      unpack(load16(q + r * shape.padded + chunk * V + i), four, 0.0f);
      even[r] = fmaf(four[2], k[i + 2], fmaf(four[0], k[i], even[r]));
      odd[r] = fmaf(four[3], k[i + 3], fmaf(four[1], k[i + 1], odd[r]));
    }
  }
  SLUICE_UNROLL
  for (uint32_t r = 0; r < n; ++r) out[r] = even[r] + odd[r];
}

// Step 1. A cell that a row does not see gets -infinity; keys that none of them sees are not read.
template <class T, uint32_t R>
SLUICE_DEVICE void score_page(const AttentionCall& call, const HeadShape& shape, const KvSpan& span,
                              const QueryRow* rows, const Run& run, const Page<T>& page, const TileMemory<R>& memory) {
  constexpr uint32_t n = R / 2, cells = attention_threads / 2;
  const uint32_t first_row = thread_x() / cells * n;
  for (uint32_t c = page.begin + thread_x() % cells; c < page.end; c += cells) {
    bool seen[n], any = false;
    SLUICE_UNROLL
    for (uint32_t i = 0; i < n; ++i) {
      const uint32_t r = first_row + i;
      seen[i] = r >= run.first && r < run.last && sees(call, rows[r], span, page.first_cell + c);
      any = any || seen[i];
    }
    float dot[n] = {};
    if (any)
      dot_products(page.keys + uint64_t{c} * call.head_dim, memory.q + first_row * shape.padded, shape, call.head_dim,
                   dot);
    SLUICE_UNROLL
    for (uint32_t i = 0; i < n; ++i) {
      float score = call.scale * dot[i];
      if (call.softcap > 0) score = call.softcap * tanhf(score / call.softcap);
      memory.weights[c * R + first_row + i] = seen[i] ? score : -INFINITY;
    }
  }
}

// Step 2. Scores become weights; m and l of each row.
template <class T, uint32_t R>
SLUICE_DEVICE void weigh_page(const Page<T>& page, const TileMemory<R>& memory, PageSums* page_sums) {
  for (uint32_t r = warp(); r < R; r += attention_warps) {
    const uint32_t first = page.begin / 32 * 32 + lane();
    float m = -INFINITY, l = 0.0f;
    for (uint32_t c = first; c < page.end; c += 32)
      if (c >= page.begin) m = fmaxf(m, memory.weights[c * R + r]);
    m = warp_max(m);
    for (uint32_t c = first; c < page.end; c += 32) {
      if (c < page.begin) continue;
      float& weight = memory.weights[c * R + r];
      weight = weight == -INFINITY ? 0.0f : expf(weight - m);
      l += weight;
    }
    l = warp_sum(l);
    if (lane() == 0) page_sums[r] = {m, l};
  }
}

// Step 3. What each group of cells adds to O. With a tree, cells that the run does not see are not read.
template <class T, uint32_t R>
SLUICE_DEVICE void add_page_values(const AttentionCall& call, const HeadShape& shape, const KvSpan& span,
                                   const QueryRow& first_row, const Page<T>& page, const TileMemory<R>& memory) {
  constexpr uint32_t V = 16 / sizeof(T);
  const uint32_t chunk = thread_x() % shape.chunks, group = thread_x() / shape.chunks;
  if (group >= shape.cell_groups) return;
  float acc[R][V] = {};
  for (uint32_t c = page.begin / shape.cell_groups * shape.cell_groups + group; c < page.end; c += shape.cell_groups) {
    if (c < page.begin || (call.tree && !sees(call, first_row, span, page.first_cell + c))) continue;
    float v[V];
    load_chunk(page.values + uint64_t{c} * call.head_dim, chunk, call.head_dim, v);
    SLUICE_UNROLL
    for (uint32_t r = 0; r < R; r += 4) {
      float weight[4];
      unpack(load16(memory.weights + c * R + r), weight, 0.0f);
      SLUICE_UNROLL
      for (uint32_t i = 0; i < 4; ++i) SLUICE_UNROLL
      for (uint32_t j = 0; j < V; ++j) acc[r + i][j] = fmaf(weight[i], v[j], acc[r + i][j]);
    }
  }
  SLUICE_UNROLL
  for (uint32_t r = 0; r < R; ++r) SLUICE_UNROLL
  for (uint32_t j = 0; j < V; ++j) memory.sums[(group * R + r) * shape.padded + chunk * V + j] = acc[r][j];
}

// O of one row and column of the page, the groups in their order.
template <uint32_t R>
SLUICE_DEVICE float page_value(const HeadShape& shape, const TileMemory<R>& memory, uint32_t row, uint32_t column) {
  float sum = 0.0f;
  for (uint32_t g = 0; g < shape.cell_groups; ++g) sum += memory.sums[(g * R + row) * shape.padded + column];
  return sum;
}

// All three steps, for all threads of the block. What is in page_sums may be read at once, memory.sums behind one more
// barrier. A row that sees no cell of the page has l = 0.
template <class T, uint32_t R>
SLUICE_DEVICE void attend_page(const AttentionCall& call, const HeadShape& shape, const KvSpan& span,
                               const QueryRow* rows, const Run& run, const Page<T>& page, const TileMemory<R>& memory,
                               PageSums* page_sums) {
  score_page<T, R>(call, shape, span, rows, run, page, memory);
  block_barrier();
  weigh_page<T, R>(page, memory, page_sums);
  block_barrier();
  add_page_values<T, R>(call, shape, span, rows[run.first], page, memory);
}

// What O so far, and O of the page, are multiplied with.
struct Factors {
  float old_o, page_o;
};

// Adds a page to a row's m and l.
SLUICE_DEVICE Factors merge_page(PageSums& row, const PageSums& page) {
  const float m = fmaxf(row.m, page.m);
  const Factors factors{expf(row.m - m), expf(page.m - m)};
  row.l = fmaf(row.l, factors.old_o, page.l * factors.page_o);
  row.m = m;
  return factors;
}
SLUICE_DEVICE float merge_value(const Factors& factors, float o, float page_o) {
  return fmaf(o, factors.old_o, page_o * factors.page_o);
}

// out = O / l; zero for a query that saw nothing.
SLUICE_DEVICE float finished(float o, float l) { return o / (l == 0.0f ? 1.0f : l); }

}  // namespace sluice::gpu
