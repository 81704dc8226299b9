// Attention of prompts over f16 keys and values, on tensor cores (Dao, arXiv:2307.08691).
//
// Bytes: a page for every 64 or 128 rows (tokens and the heads that share a kv head), mostly from the L2. Flops: 8 *
// head_dim a cell and row on the tensor cores, twice what the sums need; bound by these, by the reading of fragments
// from shared memory and, with few tokens, by the latency of a chain of pages.
//
// A warp has 16 rows and goes through the pages in order, some cells at a time at fixed places within a page, while the
// next cells are on their way to shared memory: scores and weights stay in registers, where the accumulator of the
// first product is the operand of the second. Keys and values are what they are, scaled queries and weights the sum of
// two halves, high and low, which are right to some 2^-21 of them: with high alone a model's logits are twice as far
// from exact as the CPU's. Sums are f32. Cells that a row does not see change none of its bits. Heads of 129 to 256
// columns leave no registers for the queries, which are read again for each tile, and take 32 cells at a time where
// others take 64; those beyond 192 spill 16 bytes, since O alone takes 128 registers of a thread.
#include <cmath>

#include "gpu/kernels/attention_prompt.h"
#include "gpu/kernels/attention_tile.h"
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"

namespace sluice::gpu {
namespace {

constexpr float log2_e = 1.44269504f;
constexpr uint32_t most_rows = 128;     // of a block, 16 a warp
constexpr uint32_t pages_at_once = 64;  // whose addresses are looked up together

// K16: columns of a head / 16, rounded up. Warps of a block: W.
template <uint32_t K16>
constexpr uint32_t cells_at_once = K16 <= 8 ? 64 : 32;

// The keys or values of some cells.
template <uint32_t K16>
struct alignas(16) Cells {
  uint16_t rows[cells_at_once<K16>][16 * K16 + 8];
};
template <uint32_t K16>
struct Stage {
  Cells<K16> keys, values;
};

// Of the run's pages, some in a row; null where no row sees any of one's cells.
struct PageAddresses {
  const void* keys[pages_at_once];
  const void* values[pages_at_once];
};

// Cells [first, first + cells_at_once) of a page begin to move; those outside of the page's [begin, end) are zeros.
template <uint32_t K16>
SLUICE_DEVICE void fetch_cells(const uint16_t* page, uint32_t first, uint32_t begin, uint32_t end, uint32_t head_dim,
                               Cells<K16>& cells) {
  for (uint32_t i = thread_x(); i < cells_at_once<K16> * 2 * K16; i += block_dim_x()) {
    const uint32_t cell = i / (2 * K16), d = i % (2 * K16) * 8, c = first + cell;
    if (c >= begin && c < end && d < head_dim) {
      async_copy16(&cells.rows[cell][d], page + uint64_t{c} * head_dim + d);
    } else {
      store16(&cells.rows[cell][d], Vec16{});
    }
  }
}

// Two values as the packed halves of a fragment's register, and what these leave of them.
SLUICE_DEVICE void split_pair(float a, float b, uint32_t& high, uint32_t& low) {
  high = floats_to_halves(a, b);
  low = floats_to_halves(a - half_bits_to_float(static_cast<uint16_t>(high)),
                         b - half_bits_to_float(static_cast<uint16_t>(high >> 16)));
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

// The first operand of a product: high is what halves make of it, low what they leave.
struct Operand {
  uint32_t high[4], low[4];
};

// d += a * b for the two times 8 rows of the second operand.
SLUICE_DEVICE void multiply(const Operand& a, const uint32_t (&b)[4], float (&first)[4], float (&second)[4]) {
  mma_m16n8k16_f16(first, a.low, b);
  mma_m16n8k16_f16(second, a.low, b + 2);
  mma_m16n8k16_f16(first, a.high, b);
  mma_m16n8k16_f16(second, a.high, b + 2);
}

// Columns 16k..16k+15 of the scaled queries. Heads have a multiple of 8 columns.
SLUICE_DEVICE Operand load_query(const LaneRows& rows, uint32_t k, uint32_t head_dim, float scale) {
  Operand a;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t d = 16 * k + i / 2 * 8 + lane() % 4 * 2;
    const float* q = rows.q[i % 2];
    const bool inside = q != nullptr && d < head_dim;
    split_pair(inside ? q[d] * scale : 0.0f, inside ? q[d + 1] * scale : 0.0f, a.high[i], a.low[i]);
  }
  return a;
}

// The queries of a warp: kept, or read again for each tile.
template <uint32_t K16, bool kept = K16 <= 8>
struct Queries {
  Operand operands[K16];
  SLUICE_DEVICE_MEMBER void load(const AttentionCall& call, const LaneRows& rows) {
    SLUICE_UNROLL
    for (uint32_t k = 0; k < K16; ++k) operands[k] = load_query(rows, k, call.head_dim, call.scale);
  }
  SLUICE_DEVICE_MEMBER Operand get(const AttentionCall& /*call*/, const LaneRows& /*rows*/, uint32_t k) const {
    return operands[k];
  }
};
template <uint32_t K16>
struct Queries<K16, false> {
  SLUICE_DEVICE_MEMBER void load(const AttentionCall& /*call*/, const LaneRows& /*rows*/) {}
  SLUICE_DEVICE_MEMBER Operand get(const AttentionCall& call, const LaneRows& rows, uint32_t k) const {
    return load_query(rows, k, call.head_dim, call.scale);
  }
};

template <uint32_t K16>
constexpr uint32_t score_fragments = cells_at_once<K16> / 8;
template <uint32_t K16>
using Scores = float[score_fragments<K16>][4];  // fragments of 16 rows x 8 cells

template <uint32_t K16>
SLUICE_DEVICE void score_tile(const AttentionCall& call, const Cells<K16>& keys, const LaneRows& rows,
                              const Queries<K16>& queries, Scores<K16>& scores) {
  SLUICE_UNROLL
  for (uint32_t k = 0; k < K16; ++k) {
    const Operand q = queries.get(call, rows, k);
    SLUICE_UNROLL
    for (uint32_t c = 0; c < score_fragments<K16>; c += 2) {
      uint32_t of_keys[4];  // 16 cells, 16 columns
      ldmatrix_x4(of_keys, &keys.rows[8 * c + lane() / 16 * 8 + lane() % 8][16 * k + lane() / 8 % 2 * 8]);
      multiply(q, of_keys, scores[c], scores[c + 1]);
    }
  }
}

// Scores of cells that a row does not see become -infinity; `first_cell`, `end`: of the sequence.
template <uint32_t K16>
SLUICE_DEVICE void hide(const LaneRows& rows, uint32_t first_cell, uint32_t end, Scores<K16>& scores) {
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 4 * score_fragments<K16>; ++i) {
    const uint32_t r = i % 4 / 2, cell = first_cell + i / 4 * 8 + lane() % 4 * 2 + i % 2;
    if (cell < rows.begin[r] || cell >= rows.end[r] || cell >= end) scores[i / 4][i % 4] = -INFINITY;
  }
}

// Scores become weights; what the rows have so far shrinks to the new m.
template <uint32_t K16>
SLUICE_DEVICE void weigh_tile(Scores<K16>& scores, Results<K16>& results) {
  float shrink[2];
  SLUICE_UNROLL
  for (uint32_t r = 0; r < 2; ++r) {
    float m = results.m[r];
    SLUICE_UNROLL
    for (uint32_t c = 0; c < score_fragments<K16>; ++c) m = fmaxf(m, fmaxf(scores[c][2 * r], scores[c][2 * r + 1]));
    m = fmaxf(m, shuffle_xor(m, 1));
    m = fmaxf(m, shuffle_xor(m, 2));
    const float offset = m == -INFINITY ? 0.0f : m * -log2_e;
    float sum = 0.0f;
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 2 * score_fragments<K16>; ++i) {
      float& weight = scores[i / 2][2 * r + i % 2];
      weight = fast_exp2(fmaf(weight, log2_e, offset));
      sum += weight;
    }
    sum += shuffle_xor(sum, 1);
    sum += shuffle_xor(sum, 2);
    shrink[r] = m == results.m[r] ? 1.0f : fast_exp2(fmaf(results.m[r], log2_e, offset));
    results.l[r] = fmaf(results.l[r], shrink[r], sum);
    results.m[r] = m;
  }
  if (!vote_any(shrink[0] != 1.0f || shrink[1] != 1.0f)) return;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 8 * K16; ++i) results.o[i / 4][i % 4] *= shrink[i % 4 / 2];
}

template <uint32_t K16>
SLUICE_DEVICE void add_values(const Cells<K16>& values, const Scores<K16>& weights, Results<K16>& results) {
  SLUICE_UNROLL
  for (uint32_t k = 0; k < score_fragments<K16> / 2; ++k) {
    Operand w;
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      const float* pair = &weights[2 * k + i / 2][i % 2 * 2];
      split_pair(pair[0], pair[1], w.high[i], w.low[i]);
    }
    SLUICE_UNROLL
    for (uint32_t n = 0; n < K16; ++n) {
      uint32_t of_values[4];  // 16 cells, 16 columns
      ldmatrix_x4_transposed(of_values, &values.rows[16 * k + lane() % 16][16 * n + lane() / 16 * 8]);
      multiply(w, of_values, results.o[2 * n], results.o[2 * n + 1]);
    }
  }
}

// Some cells of a page, which are in shared memory, for the warp's rows. first_cell, end: of the sequence.
template <uint32_t K16>
SLUICE_DEVICE void attend_tile(const AttentionCall& call, const Stage<K16>& stage, const LaneRows& rows,
                               const Queries<K16>& queries, uint32_t first_cell, uint32_t end, Results<K16>& results) {
  bool sees_some = false, sees_all = true;
  SLUICE_UNROLL
  for (uint32_t r = 0; r < 2; ++r) {
    const uint32_t last = first_cell + cells_at_once<K16>;
    sees_some |= rows.begin[r] < last && rows.end[r] > first_cell;
    sees_all &= rows.begin[r] <= first_cell && rows.end[r] >= last && end >= last;
  }
  if (!vote_any(sees_some)) return;
  Scores<K16> scores = {};
  score_tile(call, stage.keys, rows, queries, scores);
  if (call.softcap > 0) {
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 4 * score_fragments<K16>; ++i)
      scores[i / 4][i % 4] = call.softcap * tanhf(scores[i / 4][i % 4] / call.softcap);
  }
  if (vote_any(!sees_all)) hide<K16>(rows, first_cell, end, scores);
  weigh_tile<K16>(scores, results);
  add_values<K16>(stage.values, scores, results);
}

// The tiles of some pages of a run, in order.
template <uint32_t K16>
class Tiles {
 public:
  SLUICE_DEVICE_MEMBER Tiles(const AttentionCall& call, const Run& run, const PageAddresses& pages, uint32_t first,
                             uint32_t last)
      : call_(call), run_(run), pages_(pages), first_(first), last_(last), page_(first), cell_(0) {
    seek();
  }
  SLUICE_DEVICE_MEMBER bool done() const { return page_ == last_; }
  SLUICE_DEVICE_MEMBER uint32_t first_cell() const { return page_ * call_.page_tokens + cell_; }
  SLUICE_DEVICE_MEMBER uint32_t end_cell() const { return page_ * call_.page_tokens + end(); }
  SLUICE_DEVICE_MEMBER void next() {
    cell_ += cells_at_once<K16>;
    if (cell_ < end()) return;
    ++page_;
    seek();
  }
  // Every thread of the block. What is fetched is one group of copies, empty where there is nothing.
  SLUICE_DEVICE_MEMBER void fetch(Stage<K16>& stage) const {
    if (!done()) {
      const uint64_t head = uint64_t{kv_head_of_block(call_)} * call_.page_tokens * call_.head_dim;
      const auto* keys = static_cast<const uint16_t*>(pages_.keys[page_ - first_]) + head;
      const auto* values = static_cast<const uint16_t*>(pages_.values[page_ - first_]) + head;
      fetch_cells(keys, cell_, begin(), end(), call_.head_dim, stage.keys);
      fetch_cells(values, cell_, begin(), end(), call_.head_dim, stage.values);
    }
    async_commit();
  }

 private:
  // The page's cells that the run may see.
  SLUICE_DEVICE_MEMBER uint32_t begin() const {
    const uint32_t first = page_ * call_.page_tokens;
    return run_.begin > first ? run_.begin - first : 0;
  }
  SLUICE_DEVICE_MEMBER uint32_t end() const {
    const uint32_t rest = run_.end - page_ * call_.page_tokens;
    return rest < call_.page_tokens ? rest : call_.page_tokens;
  }
  // To the first tile of the first page from page_ on that some row sees.
  SLUICE_DEVICE_MEMBER void seek() {
    while (page_ < last_ && pages_.keys[page_ - first_] == nullptr) ++page_;
    if (page_ < last_) cell_ = begin() / cells_at_once<K16> * cells_at_once<K16>;
  }

  const AttentionCall& call_;
  const Run& run_;
  const PageAddresses& pages_;
  uint32_t first_, last_, page_, cell_;
};

// The addresses of pages [first, last), by as many threads.
SLUICE_DEVICE void look_up(const AttentionCall& call, const KvSpan& span, const QueryRow* rows, const Run& run,
                           uint32_t first, uint32_t last, PageAddresses& pages) {
  const uint32_t i = thread_x(), page = first + i;
  if (page >= last) return;
  const bool seen = any_sees(rows, run, page * call.page_tokens, (page + 1) * call.page_tokens);
  pages.keys[i] = seen ? span.k_pages[page - span.first_page] : nullptr;
  pages.values[i] = seen ? span.v_pages[page - span.first_page] : nullptr;
}

// All pages that a run may see. Rows of other runs see nothing meanwhile.
template <uint32_t K16>
SLUICE_DEVICE void attend_run(const AttentionCall& call, const QueryRow* rows, const Run& run,
                              const LaneRows& lane_rows, PageAddresses& pages, Stage<K16>* stages,
                              Results<K16>& results) {
  const KvSpan span = call.spans[rows[run.first].slot.seq];
  Queries<K16> queries;
  queries.load(call, lane_rows);
  const uint32_t last = (run.end + call.page_tokens - 1) / call.page_tokens;
  for (uint32_t first = run.begin / call.page_tokens; first < last; first += pages_at_once) {
    const uint32_t end = last - first < pages_at_once ? last : first + pages_at_once;
    look_up(call, span, rows, run, first, end, pages);
    block_barrier();
    Tiles<K16> now(call, run, pages, first, end), next = now;
    next.fetch(stages[0]);
    for (uint32_t stage = 0; !now.done(); now.next(), stage ^= 1) {
      next.next();
      next.fetch(stages[stage ^ 1]);
      async_wait<1>();
      block_barrier();
      attend_tile(call, stages[stage], lane_rows, queries, now.first_cell(), now.end_cell(), results);
      block_barrier();  // all are done with the tile
    }
    block_barrier();  // and with the addresses
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
  SLUICE_DYNAMIC_SHARED(Stage<K16>, stages);  // two
  SLUICE_SHARED(QueryRow, rows, [most_rows]);
  SLUICE_SHARED(PageAddresses, pages, [1]);
  const uint32_t tile_rows = block_dim_x() / 2;
  load_rows(call, tile_rows, rows);
  block_barrier();
  const uint32_t n = n_tile_rows(call, tile_rows);
  Results<K16> results;
  begin_rows(call, rows, n, results);
  warp_barrier();  // the state is read before a lane writes its m and l
  for (uint32_t first = 0; first < n;) {
    const Run run = next_run(call, rows, first, n);
    if (run.begin < run.end) attend_run(call, rows, run, lane_rows_of(call, rows, run), pages[0], stages, results);
    first = run.last;
  }
  end_rows(call, rows, n, results);
}

// A page serves twice as many rows where a block has 128, if that leaves one for each SM.
template <uint32_t K16>
Status start(cudaStream_t stream, const AttentionCall& call, uint32_t n_sms) {
  const uint64_t rows = uint64_t{call.n_tokens} * (call.n_heads / call.n_kv_heads);
  const bool many = K16 <= 8 && blocks_for(rows, most_rows) * call.n_kv_heads >= n_sms;
  const uint32_t tile_rows = many ? most_rows : most_rows / 2;
  const LaunchShape shape{.grid_x = blocks_for(rows, tile_rows) * call.n_kv_heads,
                          .block_x = 2 * tile_rows,
                          .shared_bytes = 2 * sizeof(Stage<K16>)};
  return launch(stream, launch_info("attention_prompt", call), shape, attention_prompt_kernel<K16>, call);
}

}  // namespace

bool attention_prompt_serves(const AttentionCall& call) {
  return call.type == KvType::f16 && !call.tree && call.head_dim % 8 == 0 && call.head_dim <= 256;
}

Status attention_prompt(cudaStream_t stream, const AttentionCall& call, uint32_t n_sms) {
  if (call.head_dim <= 64) return start<4>(stream, call, n_sms);
  if (call.head_dim <= 96) return start<6>(stream, call, n_sms);
  if (call.head_dim <= 128) return start<8>(stream, call, n_sms);
  if (call.head_dim <= 192) return start<12>(stream, call, n_sms);
  return start<16>(stream, call, n_sms);
}

}  // namespace sluice::gpu
