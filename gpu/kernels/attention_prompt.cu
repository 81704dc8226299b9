// Attention of prompts over f16 keys and values, on tensor cores (Dao, arXiv:2307.08691).
//
// Bytes: a page for every 64 rows (tokens and the heads that share a kv head), mostly from the L2. Flops: 12 *
// head_dim a cell and row on the tensor cores, three times what the sums need; bound by these, by the making of
// their operands and, with few tokens, by the latency of a chain of blocks.
//
// A warp has 16 rows and goes through the pages in order, 32 cells at a time at fixed places within a page: scores
// and weights stay in registers, where the accumulator of the first product is the operand of the second. Each
// factor is the sum of two bf16, high and low: exactly for f16 keys and values, to 2^-17 for queries and weights;
// high * high, high * low and low * high are added in f32, so that products are right to some 2^-16. Cells that a row
// does not see change none of its bits. For heads of 193 to 256 columns O alone takes 128 registers of a thread, and
// ptxas spills some 200 bytes.
#include <cmath>

#include "gpu/kernels/attention_prompt.h"
#include "gpu/kernels/attention_tile.h"
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t tile_rows = 64, tile_cells = 32;
static_assert(tile_rows == 16 * attention_warps);

// 32 keys, and the values of 32 cells with the cells running fastest. K16: columns of a head / 16, rounded up.
template <uint32_t K16>
struct KvTile {
  alignas(16) uint16_t k[2][tile_cells][16 * K16 + 8];  // high, low
  alignas(16) uint16_t v[2][16 * K16][tile_cells + 8];
};

struct Split {
  uint16_t high, low;
};
SLUICE_DEVICE Split split(float x) {
  const uint16_t high = float_to_bf16_bits(x);
  return {high, float_to_bf16_bits(x - bf16_bits_to_float(high))};
}

// Two values as the packed halves of a fragment's register.
SLUICE_DEVICE void split_pair(float a, float b, uint32_t& high, uint32_t& low) {
  const Split first = split(a), second = split(b);
  high = first.high | static_cast<uint32_t>(second.high) << 16;
  low = first.low | static_cast<uint32_t>(second.low) << 16;
}

// Cells [first, first + 32) of a page into the tile; those outside of the page's [begin, end) become zeros.
template <uint32_t K16>
SLUICE_DEVICE void load_keys(const Page<uint16_t>& page, uint32_t first, uint32_t head_dim, KvTile<K16>& tile) {
  for (uint32_t i = thread_x(); i < tile_cells * 2 * K16; i += attention_threads) {
    const uint32_t cell = i / (2 * K16), d = i % (2 * K16) * 8, c = first + cell;
    float k[8] = {};
    if (c >= page.begin && c < page.end && d < head_dim)
      unpack(load16(page.keys + uint64_t{c} * head_dim + d), k, uint16_t{});
    Vec16 high, low;
    SLUICE_UNROLL
    for (uint32_t j = 0; j < 4; ++j) split_pair(k[2 * j], k[2 * j + 1], high.words[j], low.words[j]);
    store16(&tile.k[0][cell][d], high);
    store16(&tile.k[1][cell][d], low);
  }
}

// Neighbouring lanes have neighbouring cells, so that they store to neighbouring addresses.
template <uint32_t K16>
SLUICE_DEVICE void load_values(const Page<uint16_t>& page, uint32_t first, uint32_t head_dim, KvTile<K16>& tile) {
  for (uint32_t i = thread_x(); i < tile_cells * 2 * K16; i += attention_threads) {
    const uint32_t cell = i % tile_cells, d = i / tile_cells * 8, c = first + cell;
    float v[8] = {};
    if (c >= page.begin && c < page.end && d < head_dim)
      unpack(load16(page.values + uint64_t{c} * head_dim + d), v, uint16_t{});
    SLUICE_UNROLL
    for (uint32_t j = 0; j < 8; ++j) {
      const Split both = split(v[j]);
      tile.v[0][d + j][cell] = both.high;
      tile.v[1][d + j][cell] = both.low;
    }
  }
}

// A lane's two rows of the warp's 16: lane / 4 and 8 more.
struct LaneRows {
  const float* q[2];  // null: no such row
  uint32_t begin[2], end[2];
};

template <uint32_t K16>
struct Results {
  float o[2 * K16][4];  // fragments of 16 rows x 8 columns
  float m[2], l[2];
};

// What columns 16k..16k+15 of the queries are as the first operand. Heads have a multiple of 8 columns.
SLUICE_DEVICE void query_fragment(const LaneRows& rows, uint32_t k, uint32_t head_dim, uint32_t (&high)[4],
                                  uint32_t (&low)[4]) {
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t d = 16 * k + i / 2 * 8 + lane() % 4 * 2;
    const float* q = rows.q[i % 2];
    const bool inside = q != nullptr && d < head_dim;
    split_pair(inside ? q[d] : 0.0f, inside ? q[d + 1] : 0.0f, high[i], low[i]);
  }
}

// d += a * b of split factors, without low * low.
SLUICE_DEVICE void multiply_split(float (&d)[4], const uint32_t (&a_high)[4], const uint32_t (&a_low)[4],
                                  const uint32_t* b_high, const uint32_t* b_low) {
  mma_m16n8k16_bf16(d, a_low, b_high);
  mma_m16n8k16_bf16(d, a_high, b_low);
  mma_m16n8k16_bf16(d, a_high, b_high);
}

// The second operand for 16 rows of a tile's matrix and 16 of what runs fastest: registers 0, 1 for the first eight
// rows, 2, 3 for the others.
template <uint32_t pitch>
SLUICE_DEVICE void load_fragment(const uint16_t (*matrix)[pitch], uint32_t row, uint32_t column, uint32_t (&b)[4]) {
  ldmatrix_x4(b, &matrix[row + lane() / 16 * 8 + lane() % 8][column + lane() / 8 % 2 * 8]);
}

using Scores = float[4][4];  // fragments of 16 rows x 8 cells

template <uint32_t K16>
SLUICE_DEVICE void score_tile(const KvTile<K16>& tile, const LaneRows& rows, uint32_t head_dim, Scores& scores) {
  for (uint32_t k = 0; 16 * k < head_dim; ++k) {
    uint32_t q_high[4], q_low[4];
    query_fragment(rows, k, head_dim, q_high, q_low);
    SLUICE_UNROLL
    for (uint32_t half = 0; half < 2; ++half) {
      uint32_t k_high[4], k_low[4];
      load_fragment(tile.k[0], 16 * half, 16 * k, k_high);
      load_fragment(tile.k[1], 16 * half, 16 * k, k_low);
      multiply_split(scores[2 * half], q_high, q_low, k_high, k_low);
      multiply_split(scores[2 * half + 1], q_high, q_low, k_high + 2, k_low + 2);
    }
  }
}

// Scores become weights; returns by how much what the row has so far shrinks, and brings m and l up to date.
template <uint32_t K16>
SLUICE_DEVICE void weigh_tile(const AttentionCall& call, const LaneRows& rows, uint32_t first_cell, uint32_t page_end,
                              Scores& scores, Results<K16>& results, float (&shrink)[2]) {
  SLUICE_UNROLL
  for (uint32_t r = 0; r < 2; ++r) {
    float most = -INFINITY;
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 8; ++i) {
      const uint32_t cell = first_cell + i / 2 * 8 + lane() % 4 * 2 + i % 2;
      float& score = scores[i / 2][2 * r + i % 2];
      score *= call.scale;
      if (call.softcap > 0) score = call.softcap * tanhf(score / call.softcap);
      if (cell < rows.begin[r] || cell >= rows.end[r] || cell >= page_end) score = -INFINITY;
      most = fmaxf(most, score);
    }
    most = fmaxf(most, shuffle_xor(most, 1));
    most = fmaxf(most, shuffle_xor(most, 2));
    const float m = fmaxf(results.m[r], most);
    float sum = 0.0f;
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 8; ++i) {
      float& weight = scores[i / 2][2 * r + i % 2];
      weight = weight == -INFINITY ? 0.0f : expf(weight - m);
      sum += weight;
    }
    sum += shuffle_xor(sum, 1);
    sum += shuffle_xor(sum, 2);
    shrink[r] = m == results.m[r] ? 1.0f : expf(results.m[r] - m);
    results.l[r] = fmaf(results.l[r], shrink[r], sum);
    results.m[r] = m;
  }
}

template <uint32_t K16>
SLUICE_DEVICE void add_values(const KvTile<K16>& tile, const Scores& weights, const float (&shrink)[2],
                              Results<K16>& results) {
  uint32_t high[2][4], low[2][4];
  SLUICE_UNROLL
  for (uint32_t k = 0; k < 2; ++k) SLUICE_UNROLL
  for (uint32_t i = 0; i < 4; ++i) {
    const float* pair = &weights[2 * k + i / 2][i % 2 * 2];
    split_pair(pair[0], pair[1], high[k][i], low[k][i]);
  }
  SLUICE_UNROLL
  for (uint32_t n = 0; n < K16; ++n) {
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 8; ++i) results.o[2 * n + i / 4][i % 4] *= shrink[i % 4 / 2];
    SLUICE_UNROLL
    for (uint32_t k = 0; k < 2; ++k) {
      uint32_t v_high[4], v_low[4];
      load_fragment(tile.v[0], 16 * n, 16 * k, v_high);
      load_fragment(tile.v[1], 16 * n, 16 * k, v_low);
      multiply_split(results.o[2 * n], high[k], low[k], v_high, v_low);
      multiply_split(results.o[2 * n + 1], high[k], low[k], v_high + 2, v_low + 2);
    }
  }
}

// All pages that a run may see. Rows of other runs see nothing meanwhile.
template <uint32_t K16>
SLUICE_DEVICE void attend_run(const AttentionCall& call, const QueryRow* rows, const Run& run,
                              const LaneRows& lane_rows, KvTile<K16>& tile, Results<K16>& results) {
  const KvSpan span = call.spans[rows[run.first].slot.seq];
  for (uint32_t index = run.begin / call.page_tokens; index * call.page_tokens < run.end; ++index) {
    if (!any_sees(rows, run, index * call.page_tokens, (index + 1) * call.page_tokens)) continue;
    const Page<uint16_t> page = page_of<uint16_t>(call, span, run, index);
    for (uint32_t c = page.begin / tile_cells * tile_cells; c < page.end; c += tile_cells) {
      block_barrier();  // all are done with the tile
      load_keys(page, c, call.head_dim, tile);
      load_values(page, c, call.head_dim, tile);
      block_barrier();
      Scores scores = {};
      float shrink[2];
      score_tile(tile, lane_rows, call.head_dim, scores);
      weigh_tile(call, lane_rows, page.first_cell + c, page.first_cell + page.end, scores, results, shrink);
      add_values(tile, scores, shrink, results);
    }
  }
}

// The lane's rows as the run sees them.
SLUICE_DEVICE LaneRows lane_rows_of(const AttentionCall& call, const QueryRow* rows, const Run& run) {
  LaneRows mine{};
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 2; ++i) {
    const uint32_t r = 16 * warp() + lane() / 4 + 8 * i;
    if (r < run.first || r >= run.last) continue;
    mine.q[i] = query_of(call, rows[r]);
    mine.begin[i] = rows[r].begin;
    mine.end[i] = rows[r].end;
  }
  return mine;
}

template <uint32_t K16>
SLUICE_DEVICE void begin_rows(const AttentionCall& call, const QueryRow* rows, uint32_t n, Results<K16>& results) {
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 2; ++i) {
    const uint32_t r = 16 * warp() + lane() / 4 + 8 * i;
    const float* state = call.start || r >= n ? nullptr : state_of(call, rows[r]);
    results.m[i] = state == nullptr ? -INFINITY : state[0];
    results.l[i] = state == nullptr ? 0.0f : state[1];
    SLUICE_UNROLL
    for (uint32_t j = 0; j < 4 * K16; ++j) {
      const uint32_t d = j / 2 * 8 + lane() % 4 * 2 + j % 2;
      results.o[j / 2][2 * i + j % 2] = state == nullptr || d >= call.head_dim ? 0.0f : state[2 + d];
    }
  }
}

template <uint32_t K16>
SLUICE_DEVICE void end_rows(const AttentionCall& call, const QueryRow* rows, uint32_t n, const Results<K16>& results) {
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 2; ++i) {
    const uint32_t r = 16 * warp() + lane() / 4 + 8 * i;
    if (r >= n) continue;
    float* state = call.state == nullptr ? nullptr : state_of(call, rows[r]);
    float* out = call.finish ? call.out + index_of(call, rows[r]) * call.head_dim : nullptr;
    SLUICE_UNROLL
    for (uint32_t j = 0; j < 4 * K16; ++j) {
      const uint32_t d = j / 2 * 8 + lane() % 4 * 2 + j % 2;
      const float o = results.o[j / 2][2 * i + j % 2];
      if (state != nullptr && d < call.head_dim) state[2 + d] = o;
      if (out != nullptr && d < call.head_dim) out[d] = finished(o, results.l[i]);
    }
    if (state == nullptr || lane() % 4 != 0) continue;
    state[0] = results.m[i];
    state[1] = results.l[i];
  }
}

template <uint32_t K16>
SLUICE_KERNEL void attention_prompt_kernel(AttentionCall call) {
  SLUICE_DYNAMIC_SHARED(KvTile<K16>, tile);
  SLUICE_SHARED(QueryRow, rows, [tile_rows]);
  load_rows<tile_rows>(call, rows);
  block_barrier();
  const uint32_t n = n_tile_rows<tile_rows>(call);
  Results<K16> results;
  begin_rows(call, rows, n, results);
  warp_barrier();  // the state is read before a lane writes its m and l
  for (uint32_t first = 0; first < n;) {
    const Run run = next_run(call, rows, first, n);
    if (run.begin < run.end) attend_run(call, rows, run, lane_rows_of(call, rows, run), *tile, results);
    first = run.last;
  }
  end_rows(call, rows, n, results);
}

template <uint32_t K16>
Status start(cudaStream_t stream, const AttentionCall& call) {
  const uint32_t group = call.n_heads / call.n_kv_heads;
  const LaunchShape shape{.grid_x = blocks_for(uint64_t{call.n_tokens} * group, tile_rows) * call.n_kv_heads,
                          .block_x = attention_threads,
                          .shared_bytes = sizeof(KvTile<K16>)};
  return launch(stream, launch_info("attention_prompt", call), shape, attention_prompt_kernel<K16>, call);
}

}  // namespace

bool attention_prompt_serves(const AttentionCall& call) {
  return call.type == KvType::f16 && !call.tree && call.head_dim % 8 == 0 && call.head_dim <= 256;
}

Status attention_prompt(cudaStream_t stream, const AttentionCall& call) {
  if (call.head_dim <= 64) return start<4>(stream, call);
  if (call.head_dim <= 96) return start<6>(stream, call);
  if (call.head_dim <= 128) return start<8>(stream, call);
  if (call.head_dim <= 192) return start<12>(stream, call);
  return start<16>(stream, call);
}

}  // namespace sluice::gpu
