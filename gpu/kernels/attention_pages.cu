// Pages of split-KV attention on tensor cores (Dao et al., arXiv:2205.14135): for decoding and draft trees over f16
// pages of 64 tokens. attention_page.h has the same for other pages, attention_merge.cu adds the pages up.
//
// Bytes: each page once for 16 rows (the heads that share a kv head, and tokens), and 4 * (head_dim + 2) written a page
// and row. Flops: 8 * head_dim a cell and row. Bound by device memory, with few pages by latency.
//
// A block has a tile of 16 rows, and of a page each warp the scores of 16 cells, then a quarter of the columns of O;
// the next page comes while it works on one. Keys and values are multiplied as they are. Queries, scaled by a power of
// two for each row, and weights, scaled by 2^15, are sums of two f16, right to 2^-22; their products are exact and
// added in f32. A row's bits depend on its own query and on the page alone: a cell that it does not see has the weight
// zero, and a cell that no row of the tile sees counts as zeros.
//
// Most of a short call is looking up where pages lie and waiting for them. Both are done before the kernel waits for
// those before it, since the cells of earlier steps are there by then: their append was followed, in its own step, by a
// kernel of attention, and that one let the next begin only behind its own wait, or was not launched early, so that
// when it was over nothing before it was under way. (So are the tables, which lie before the products of the step.)
// Of kernels since, some of which let the next begin at once and may still run now, only this step's append writes
// cells of the layer, and those are its tokens': n_before and behind. No kernel begins before a copy or a wait for an
// event that lies before it in the stream, so pages that came or moved are there, too.
#include <cmath>

#include "gpu/kernels/attention_parts.h"
#include "gpu/kernels/attention_tile.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t tile_rows = 16, page_cells = 64;
constexpr int32_t query_exponent = 13;
constexpr float weight_scale = 32768.0f;

// K16: columns of a head / 16.
template <uint32_t K16>
struct Memory {
  static constexpr uint32_t stages = K16 <= 8 ? 2 : 1, pitch = 16 * K16 + 8;
  alignas(16) uint16_t k[stages][page_cells][pitch];
  alignas(16) uint16_t v[stages][page_cells][pitch];
  alignas(16) uint16_t q[2][tile_rows][pitch];  // high, low
  alignas(16) uint16_t weights[2][tile_rows][page_cells + 8];
  float unscale[tile_rows];
  float most[attention_warps][tile_rows], sums[attention_warps][tile_rows];
};

struct Halves {
  uint16_t high, low;
};
SLUICE_DEVICE Halves halves_of(float x) {
  const uint16_t high = float_to_half_bits(x);
  return {high, float_to_half_bits(x - half_bits_to_float(high))};
}

// A power of two by its exponent, within -126..127.
SLUICE_DEVICE float power_of_two(int32_t exponent) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(exponent + 127) << 23);
}

// As load_rows(), by the tables.
SLUICE_DEVICE void load_rows_of(const AttentionCall& call, const Tables& tables, QueryRow* rows) {
  if (thread_x() >= n_tile_rows(call, tile_rows)) return;
  const uint32_t group = group_of(call), i = first_tile_row(call, tile_rows) + thread_x(), token = i / group;
  QueryRow row{slot_of(call, tables, token), token, kv_head_of_block(call) * group + i % group, 0, 0};
  find_visible(call, span_of(call, tables, token, row.slot.seq), row);
  rows[thread_x()] = row;
}

// Rows that there are not are zeros.
template <uint32_t K16>
SLUICE_DEVICE void clear_queries(uint32_t n, Memory<K16>& memory) {
  for (uint32_t r = n + warp(); r < tile_rows; r += attention_warps) {
    SLUICE_UNROLL
    for (uint32_t i = 0; i < K16 / 2; ++i) memory.q[0][r][lane() + 32 * i] = memory.q[1][r][lane() + 32 * i] = 0;
    if (lane() == 0) memory.unscale[r] = 1.0f;
  }
}

// A warp has every fourth row.
template <uint32_t K16>
SLUICE_DEVICE void split_queries(const AttentionCall& call, const QueryRow* rows, uint32_t n, Memory<K16>& memory) {
  for (uint32_t r = warp(); r < n; r += attention_warps) {
    float x[K16 / 2], most = 0.0f;
    SLUICE_UNROLL
    for (uint32_t i = 0; i < K16 / 2; ++i) {
      x[i] = query_of(call, rows[r])[lane() + 32 * i];
      most = fmaxf(most, fabsf(x[i]));
    }
    most = warp_max(most);
    int32_t exponent = static_cast<int32_t>(__builtin_bit_cast(uint32_t, most) >> 23) - 127;
    exponent = exponent < -100 ? -100 : exponent > 100 ? 100 : exponent;
    const float scale = power_of_two(query_exponent - exponent);
    SLUICE_UNROLL
    for (uint32_t i = 0; i < K16 / 2; ++i) {
      const Halves halves = halves_of(x[i] * scale);
      memory.q[0][r][lane() + 32 * i] = halves.high;
      memory.q[1][r][lane() + 32 * i] = halves.low;
    }
    if (lane() == 0) memory.unscale[r] = power_of_two(exponent - query_exponent);
  }
}

// What a run looks at: pages first, first + grid_y, … up to `last`, of them those that some row may see.
struct Walk {
  KvSpan span;
  uint32_t first, last;
  uint64_t drafts;  // with a tree: the cells from n_before on that some row sees
};

SLUICE_DEVICE uint64_t drafts_seen(const AttentionCall& call, const QueryRow* rows, const Run& run) {
  uint64_t seen = 0;
  if (!call.tree) return seen;
  for (uint32_t r = run.first; r < run.last; ++r) seen |= rows[r].slot.ancestors;
  return seen;
}

SLUICE_DEVICE uint32_t next_page(const AttentionCall& call, const QueryRow* rows, const Run& run, const Walk& walk,
                                 uint32_t index) {
  if (call.window == 0) return index;
  while (index < walk.last && !any_sees(rows, run, index * page_cells, (index + 1) * page_cells)) index += grid_y();
  return index;
}

SLUICE_DEVICE Page<uint16_t> page_at(const AttentionCall& call, const Run& run, const Walk& walk, uint32_t index) {
  if (index >= walk.last) return {};
  return page_of<uint16_t>(call, walk.span, run, index);
}

SLUICE_DEVICE Walk walk_of(const AttentionCall& call, const Tables& tables, const PagePart& part, const QueryRow* rows,
                           const Run& run) {
  const QueryRow& row = rows[run.first];
  Walk walk{span_of(call, tables, row.token, row.slot.seq), 0, 0, drafts_seen(call, rows, run)};
  const uint32_t origin = walk.span.first_page + part.first, seen_first = run.begin / page_cells;
  const uint32_t end = (run.end + page_cells - 1) / page_cells;
  walk.last = end < origin + part.n ? end : origin + part.n;
  walk.first = next_page(call, rows, run, walk, (seen_first > origin ? seen_first : origin) + block_y());
  return walk;
}

// Cells of a page.
struct Cells {
  uint32_t first, last;
};
SLUICE_DEVICE Cells all_cells() { return {0, page_cells}; }
// Those from before the batch: all before the first new one.
SLUICE_DEVICE Cells old_cells(const Walk& walk, const Page<uint16_t>& page) {
  const uint32_t before = walk.span.n_before;
  const uint32_t n = before > page.first_cell ? before - page.first_cell : 0;
  return {0, n < page_cells ? n : page_cells};
}

// Some cells of a page; those that no row of the run sees become zeros. A thread has the same 16 bytes of every few
// cells.
template <uint32_t K16>
SLUICE_DEVICE void stage_cells(const AttentionCall& call, const Walk& walk, const Page<uint16_t>& page,
                               const Cells& cells, uint32_t stage, Memory<K16>& memory) {
  constexpr uint32_t pieces = 2 * K16, cells_at_once = attention_threads / pieces;
  const uint32_t first = thread_x() / pieces, d = thread_x() % pieces * 8;
  const uint16_t* keys = page.keys + uint64_t{first} * (16 * K16) + d;
  const uint16_t* values = page.values + uint64_t{first} * (16 * K16) + d;
  const bool all =
      page.begin == 0 && page.end == page_cells && (!call.tree || page.first_cell + page_cells <= walk.span.n_before);
  const SharedPlace to_keys = shared_place(&memory.k[stage][first][d]);
  const SharedPlace to_values = shared_place(&memory.v[stage][first][d]);
  constexpr uint32_t shared_step = cells_at_once * Memory<K16>::pitch * 2, step = cells_at_once * 16 * K16;
  SLUICE_UNROLL
  for (uint32_t j = 0; j < page_cells / cells_at_once; ++j) {
    const uint32_t cell = first + j * cells_at_once;
    if (cell < cells.first || cell >= cells.last) continue;
    bool seen = all || (cell >= page.begin && cell < page.end);
    if (!all && call.tree && page.first_cell + cell >= walk.span.n_before) {
      const uint32_t draft = page.first_cell + cell - walk.span.n_before;
      seen = seen && draft < 64 && (walk.drafts >> draft & 1) != 0;
    }
    if (seen) {
      async_copy16_to(to_keys + j * shared_step, keys + j * step);
      async_copy16_to(to_values + j * shared_step, values + j * step);
    } else {
      store16(&memory.k[stage][cell][d], Vec16{});
      store16(&memory.v[stage][cell][d], Vec16{});
    }
  }
}

using Scores = float[2][4];  // fragments of 16 rows x 8 cells

template <uint32_t K16>
SLUICE_DEVICE void score_cells(const Memory<K16>& memory, uint32_t stage, Scores& scores) {
  Scores of_low = {};  // apart, so that products wait less for each other
  const uint32_t cell = 16 * warp() + lane() / 16 * 8 + lane() % 8;
  SLUICE_UNROLL
  for (uint32_t k = 0; k < K16; ++k) {
    uint32_t high[4], low[4], keys[4];
    ldmatrix_x4(high, &memory.q[0][lane() % 16][16 * k + lane() / 16 * 8]);
    ldmatrix_x4(low, &memory.q[1][lane() % 16][16 * k + lane() / 16 * 8]);
    ldmatrix_x4(keys, &memory.k[stage][cell][16 * k + lane() / 8 % 2 * 8]);
    SLUICE_UNROLL
    for (uint32_t n = 0; n < 2; ++n) {
      mma_m16n8k16_f16(of_low[n], low, keys + 2 * n);
      mma_m16n8k16_f16(scores[n], high, keys + 2 * n);
    }
  }
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 8; ++i) scores[i / 4][i % 4] += of_low[i / 4][i % 4];
}

// Scores as they are defined, -infinity for cells that a row does not see; the warp's largest to shared memory.
template <uint32_t K16>
SLUICE_DEVICE void mask_scores(const AttentionCall& call, const QueryRow* rows, const Run& run, const Walk& walk,
                               uint32_t first_cell, Scores& scores, Memory<K16>& memory) {
  SLUICE_UNROLL
  for (uint32_t h = 0; h < 2; ++h) {
    const uint32_t r = lane() / 4 + 8 * h;
    const bool in_run = r >= run.first && r < run.last;
    float most = -INFINITY;
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t cell = first_cell + 16 * warp() + i / 2 * 8 + lane() % 4 * 2 + i % 2;
      float& score = scores[i / 2][2 * h + i % 2];
      score = call.scale * (score * memory.unscale[r]);
      if (call.softcap > 0) score = call.softcap * tanhf(score / call.softcap);
      if (!in_run || !sees(call, rows[r], walk.span, cell)) score = -INFINITY;
      most = fmaxf(most, score);
    }
    most = fmaxf(most, shuffle_xor(most, 1));
    most = fmaxf(most, shuffle_xor(most, 2));
    if (lane() % 4 == 0) memory.most[warp()][r] = most;
  }
}

// Over the warps, in their order.
template <uint32_t K16>
SLUICE_DEVICE float most_of(const Memory<K16>& memory, uint32_t row) {
  float most = memory.most[0][row];
  SLUICE_UNROLL
  for (uint32_t w = 1; w < attention_warps; ++w) most = fmaxf(most, memory.most[w][row]);
  return most;
}

template <uint32_t K16>
SLUICE_DEVICE void weigh_cells(const Scores& scores, Memory<K16>& memory) {
  SLUICE_UNROLL
  for (uint32_t h = 0; h < 2; ++h) {
    const uint32_t r = lane() / 4 + 8 * h;
    const float most = most_of(memory, r);
    float sum = 0.0f;
    SLUICE_UNROLL
    for (uint32_t n = 0; n < 2; ++n) {
      uint32_t high = 0, low = 0;
      SLUICE_UNROLL
      for (uint32_t i = 0; i < 2; ++i) {
        const float score = scores[n][2 * h + i], weight = score == -INFINITY ? 0.0f : expf(score - most);
        const Halves halves = halves_of(weight_scale * weight);
        sum += weight;
        high |= static_cast<uint32_t>(halves.high) << (16 * i);
        low |= static_cast<uint32_t>(halves.low) << (16 * i);
      }
      const uint32_t cell = 16 * warp() + 8 * n + lane() % 4 * 2;
      *reinterpret_cast<uint32_t*>(&memory.weights[0][r][cell]) = high;
      *reinterpret_cast<uint32_t*>(&memory.weights[1][r][cell]) = low;
    }
    sum += shuffle_xor(sum, 1);
    sum += shuffle_xor(sum, 2);
    if (lane() % 4 == 0) memory.sums[warp()][r] = sum;
  }
}

template <uint32_t K16>
using Outputs = float[K16 / 2][4];  // fragments of 16 rows x 8 columns

template <uint32_t K16>
SLUICE_DEVICE void add_values(const Memory<K16>& memory, uint32_t stage, Outputs<K16>& o) {
  SLUICE_UNROLL
  for (uint32_t c = 0; c < page_cells; c += 16) {
    uint32_t high[4], low[4];
    ldmatrix_x4(high, &memory.weights[0][lane() % 16][c + lane() / 16 * 8]);
    ldmatrix_x4(low, &memory.weights[1][lane() % 16][c + lane() / 16 * 8]);
    SLUICE_UNROLL
    for (uint32_t n = 0; n < K16 / 2; n += 2) {
      uint32_t values[4];
      const uint32_t cell = c + lane() / 8 % 2 * 8 + lane() % 8, column = 4 * K16 * warp() + 8 * n + lane() / 16 * 8;
      ldmatrix_x4_transposed(values, &memory.v[stage][cell][column]);
      SLUICE_UNROLL
      for (uint32_t i = 0; i < 2; ++i) {
        mma_m16n8k16_f16(o[n + i], low, values + 2 * i);
        mma_m16n8k16_f16(o[n + i], high, values + 2 * i);
      }
    }
  }
}

struct alignas(8) Two {
  float first, second;
};

template <uint32_t K16>
SLUICE_DEVICE void store_partials(const AttentionCall& call, const PagePart& part, uint32_t page, const QueryRow* rows,
                                  const Run& run, const Memory<K16>& memory, const Outputs<K16>& o) {
  SLUICE_UNROLL
  for (uint32_t h = 0; h < 2; ++h) {
    const uint32_t r = lane() / 4 + 8 * h;
    if (r < run.first || r >= run.last) continue;
    float* partial = partial_of(call, part, page, rows[r].token, rows[r].head);
    SLUICE_UNROLL
    for (uint32_t n = 0; n < K16 / 2; ++n)
      *reinterpret_cast<Two*>(partial + 2 + 4 * K16 * warp() + 8 * n + lane() % 4 * 2) = {
          o[n][2 * h] * (1.0f / weight_scale), o[n][2 * h + 1] * (1.0f / weight_scale)};
    if (warp() != 0 || lane() % 4 != 0) continue;
    float l = memory.sums[0][r];
    SLUICE_UNROLL
    for (uint32_t w = 1; w < attention_warps; ++w) l += memory.sums[w][r];
    *reinterpret_cast<Two*>(partial) = {most_of(memory, r), l};
  }
}

template <uint32_t K16>
SLUICE_DEVICE void attend_page(const AttentionCall& call, const PagePart& part, const QueryRow* rows, const Run& run,
                               const Walk& walk, uint32_t index, uint32_t stage, Memory<K16>& memory) {
  Scores scores = {};
  score_cells(memory, stage, scores);
  mask_scores(call, rows, run, walk, index * page_cells, scores, memory);
  block_barrier();
  weigh_cells(scores, memory);
  block_barrier();
  Outputs<K16> o = {};
  add_values(memory, stage, o);
  store_partials(call, part, index - walk.span.first_page - part.first, rows, run, memory, o);
}

// The pages of a run, of which the first is on its way, each while the next one is; where that lies is looked up one
// page earlier still.
template <uint32_t K16>
SLUICE_DEVICE void attend_run(const AttentionCall& call, const PagePart& part, const QueryRow* rows, const Run& run,
                              const Walk& walk, Memory<K16>& memory) {
  uint32_t index = walk.first, next = next_page(call, rows, run, walk, index + grid_y()), stage = 0;
  Page<uint16_t> coming = page_at(call, run, walk, next);
  while (index < walk.last) {
    async_wait<0>();
    block_barrier();
    if (Memory<K16>::stages == 1) attend_page(call, part, rows, run, walk, index, 0, memory);
    if (Memory<K16>::stages == 1) block_barrier();
    const uint32_t other = Memory<K16>::stages == 1 ? 0 : stage ^ 1;
    if (next < walk.last) stage_cells(call, walk, coming, all_cells(), other, memory);
    async_commit();
    const uint32_t after = next_page(call, rows, run, walk, next + grid_y());
    coming = page_at(call, run, walk, after);
    if (Memory<K16>::stages == 2) attend_page(call, part, rows, run, walk, index, stage, memory);
    index = next;
    next = after;
    stage = other;
  }
}

// The run that begins with row `first` of n: unlike those of other kernels it may have several tokens of a tree.
SLUICE_DEVICE Run run_from(const AttentionCall& call, const QueryRow* rows, uint32_t first, uint32_t n) {
  AttentionCall plain = call;
  plain.tree = false;
  return next_run(plain, rows, first, n);
}

// The first run of a tile; its first page comes while the kernel before may still run, but for the cells that are new.
template <uint32_t K16>
SLUICE_DEVICE Run attend_first(const AttentionCall& call, const Tables& tables, const PagePart& part,
                               const QueryRow* rows, uint32_t n, Memory<K16>& memory) {
  const Run run = run_from(call, rows, 0, n);
  const Walk walk = walk_of(call, tables, part, rows, run);
  const Page<uint16_t> page = page_at(call, run, walk, walk.first);
  const Cells old = old_cells(walk, page);
  const bool any = walk.first < walk.last;
  if (any) stage_cells(call, walk, page, old, 0, memory);
  clear_queries(n, memory);
  wait_for_previous();  // queries and new cells are those of kernels before
  let_next_begin();     // whose blocks are small, and let none begin before this kernel has ended
  if (any && old.last < page_cells) stage_cells(call, walk, page, {old.last, page_cells}, 0, memory);
  async_commit();
  split_queries(call, rows, n, memory);
  attend_run(call, part, rows, run, walk, memory);
  return run;
}

template <uint32_t K16>
SLUICE_KERNEL void attention_pages_kernel(AttentionCall call, Tables tables, PagePart part) {
  SLUICE_DYNAMIC_SHARED(Memory<K16>, memory);
  SLUICE_SHARED(QueryRow, rows, [tile_rows]);
  load_rows_of(call, tables, rows);
  block_barrier();
  const uint32_t n = n_tile_rows(call, tile_rows);
  for (uint32_t first = attend_first(call, tables, part, rows, n, *memory).last; first < n;) {
    const Run run = run_from(call, rows, first, n);
    const Walk walk = walk_of(call, tables, part, rows, run);
    block_barrier();  // all are done with the run before
    if (walk.first < walk.last) stage_cells(call, walk, page_at(call, run, walk, walk.first), all_cells(), 0, *memory);
    async_commit();
    attend_run(call, part, rows, run, walk, *memory);
    first = run.last;
  }
}

template <uint32_t K16>
Status start(cudaStream_t stream, const LaunchInfo& counted, const AttentionCall& call, const Tables& tables,
             const PagePart& part, uint32_t pages, const KernelContext& context) {
  const uint32_t rows = call.n_tokens * (call.n_heads / call.n_kv_heads);
  LaunchShape shape{.grid_x = (rows + tile_rows - 1) / tile_rows * call.n_kv_heads,
                    .block_x = attention_threads,
                    .shared_bytes = sizeof(Memory<K16>),
                    .early = true};
  const uint32_t blocks = (2 * context.n_sms + shape.grid_x - 1) / shape.grid_x;  // some two for each SM
  shape.grid_y = blocks < pages ? blocks : pages;
  return launch(stream, counted, shape, attention_pages_kernel<K16>, call, tables, part);
}

}  // namespace

bool attention_pages_serves(const AttentionCall& call) {
  return call.type == KvType::f16 && call.page_tokens == page_cells &&
         (call.head_dim == 64 || call.head_dim == 128 || call.head_dim == 256);
}

Status attention_pages(cudaStream_t stream, const LaunchInfo& counted, const AttentionCall& call, const Tables& tables,
                       const PagePart& part, uint32_t pages, const KernelContext& context) {
  if (call.head_dim == 64) return start<4>(stream, counted, call, tables, part, pages, context);
  if (call.head_dim == 128) return start<8>(stream, counted, call, tables, part, pages, context);
  return start<16>(stream, counted, call, tables, part, pages, context);
}

}  // namespace sluice::gpu
