// How the decode products share their work out, and what they do while it comes: tiles, warps, stages of shared memory.
// The products themselves are in matvec_q8.cu.
#pragma once

#include <type_traits>

#include "gpu/kernels/kernels.h"
#include "gpu/kernels/matvec_stage.h"
#include "gpu/kernels/q8_rows.h"

namespace sluice::gpu {

// Of one token, matrices of so many rows keep a card busy with four warps for a tile; others have eight.
constexpr uint32_t many_rows = 65536;

// Each row has so many sums, the i-th of chunks i, i + n_sums, …, whatever number of warps there is.
constexpr uint32_t n_sums = 8;

// Rows of more columns than this, of types of which models have such, are shared by twice as many warps: few rows are
// then enough to keep a card busy, and few are what down projections have.
constexpr uint32_t long_row = 8192;
template <class F>
constexpr bool has_long_rows = false;
template <>
constexpr bool has_long_rows<Q4_K> = true;
template <>
constexpr bool has_long_rows<Q6_K> = true;

// Where weights come by rows, warps that an SM has registers for.
template <class F>
constexpr uint32_t row_warps = 32;
template <>
constexpr uint32_t row_warps<Q6_K> = 24;

constexpr uint32_t scale_pitch = stage_rows + 2;  // the lanes of eight rows and four blocks meet different banks
constexpr uint32_t most_shared = 99 * 1024;       // of a block: every card since 2020 has it
constexpr uint32_t shared_of_sm = 228 * 1024;     // of Hopper; others take their blocks in turn
constexpr uint32_t reserved_of_block = 1024;      // by CUDA

// How weights come: by pieces that begin anywhere or at multiples of 16, or by whole rows.
struct ByPieces {};
struct ByAlignedPieces {};
struct ByRows {};

// What a kernel is compiled for: M times 16 rows, tokens in N times 8 (N = 0: one), so many warps.
template <class Format, class Way, uint32_t n, uint32_t m, uint32_t n_warps>
struct Variant {
  using F = Format;
  static constexpr bool by_rows = std::is_same_v<Way, ByRows>;
  static constexpr bool aligned = std::is_same_v<Way, ByAlignedPieces>;
  static constexpr uint32_t warps = n_warps;
  // A warp that has more than one of the sums has them one after the other; of one token, whose sums are small, in turn.
  static constexpr uint32_t passes = n == 0 ? 1 : n_sums / n_warps, turns = n == 0 ? n_sums / n_warps : 1;
  static_assert(n_sums % n_warps == 0 && turns <= 2);
  // As many as there is room for; of spans two, which leaves room for more blocks.
  static constexpr uint32_t stages = by_rows || (n > 0 && warps > 4) ? 2 : 3;
  static constexpr uint32_t N = n, M = m, rows = m * stage_rows, tokens = n == 0 ? 1 : 8 * n;
  static constexpr uint32_t n_scales = subs_per_chunk * scales_per_sub<F>;
  static constexpr uint32_t stage_bytes = M * ChunkOf<F, aligned>::stage_bytes, span_bytes = rows * SpanOf<F>::pitch;
  // Blocks that an SM has registers for.
  static constexpr uint32_t most_blocks = by_rows ? row_warps<F> / n_warps : n_warps > 4 ? 1 : 3;
  static constexpr uint32_t partial_floats = n_sums * tokens * rows, n_partials = passes > 1 ? 1 : 2;
};

template <class V>
struct WarpMemory {
  alignas(16) std::byte stage[V::by_rows ? 1 : V::stages][V::by_rows ? 16 : V::stage_bytes];        // by rows: unused
  ScaleMin scales[V::N == 0 ? 1 : V::M][V::N == 0 ? 1 : V::n_scales][V::N == 0 ? 2 : scale_pitch];  // N = 0: unused
};

template <class V>
struct BlockMemory {
  alignas(16) std::byte span[V::by_rows ? V::stages : 1][V::by_rows ? V::span_bytes : 16];  // by pieces: unused
  TransferBarrier there[V::stages];
  WarpMemory<V> warp[V::warps];
  float partial[V::n_partials][V::partial_floats];  // of this tile and the one before
};

// Products of the same activations, the tiles of one behind those of the other.
struct ProductPart {
  const std::byte* weights;
  ProductOut to;
  uint32_t rows, first_tile;
};
struct ProductGroup {
  uint32_t first_tiles[most_joint];  // beyond all tiles where there is no such part; together in one line of the caches
  ProductPart parts[most_joint];
  const std::byte* x;
  Q8Layout layout;
  uint64_t row_bytes;
  uint32_t cols, n_tokens, n_tiles;
};

SLUICE_DEVICE const ProductPart& part_of(const ProductGroup& group, uint32_t tile) {
  uint32_t part = 0;
  SLUICE_UNROLL
  for (uint32_t i = 1; i < most_joint; ++i) part += tile >= group.first_tiles[i] ? 1 : 0;
  return group.parts[part];
}

// The products as a block's warps share them: tiles block_x, block_x + grid_x, …; of each, so many passes of so many
// steps, at chunks warp + V::warps * (pass + V::passes * step).
struct Work {
  const ProductGroup& group;
  uint32_t n_chunks, n_steps, n_subs;
};

template <class V>
SLUICE_DEVICE Work work_of(const ProductGroup& group) {
  constexpr uint32_t at_once = V::warps * V::passes;
  const uint32_t n_chunks = (group.cols + chunk_cols - 1) / chunk_cols;
  return {group, n_chunks, (n_chunks + at_once - 1) / at_once, group.cols / 32};
}

template <class V>
SLUICE_DEVICE RowTile tile_of(const ProductGroup& group, const ProductPart& part, uint32_t tile) {
  return {part.weights, group.row_bytes, (tile - part.first_tile) * V::rows, part.rows - 1};
}

// Where copies or products are.
struct Position {
  uint32_t tile, pass, step, slot;
};

template <class V>
SLUICE_DEVICE void advance(const Work& work, Position& position) {
  position.slot = position.slot + 1 == V::stages ? 0 : position.slot + 1;
  if (++position.step < work.n_steps) return;
  position.step = 0;
  if (++position.pass < V::passes) return;
  position.pass = 0;
  position.tile += grid_x();
}

// What a warp copies next.
template <class V>
struct Loader {
  Position at;
  const std::byte* first[2 * V::M];  // of the chunk, in rows lane / 4 + 8i of the tile
  int32_t place[2 * V::M];           // of this lane; where rows are aligned all chunks of a pass have the same
  uint32_t rest;                     // bytes of the row from there on, 0 if the warp has no such chunk
  std::byte* rows;                   // of the first stage, from lane / 4 on
  SharedPlace to;                    // the same
};

template <class V>
SLUICE_DEVICE void begin_pass(const Work& work, Loader<V>& loader) {
  using C = ChunkOf<typename V::F, V::aligned>;
  const uint32_t skipped = (loader.at.pass * V::warps + warp()) * C::bytes;
  const auto all = static_cast<uint32_t>(work.group.row_bytes);
  loader.rest = loader.at.tile < work.group.n_tiles && all > skipped ? all - skipped : 0;
  const RowTile tile = tile_of<V>(work.group, part_of(work.group, loader.at.tile), loader.at.tile);
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 2 * V::M; ++i) {
    loader.first[i] = tile_row(tile, lane() / 4 + 8 * i) + skipped;
    loader.place[i] = place_of_lane(loader.first[i]);
  }
}

template <class V>
SLUICE_DEVICE Loader<V> loader_of(const Work& work, WarpMemory<V>& memory) {
  using C = ChunkOf<typename V::F, V::aligned>;
  static_assert(!V::aligned || V::warps * V::passes * C::bytes % 64 == 0);
  std::byte* const rows = memory.stage[0] + lane() / 4 * C::pitch;
  Loader<V> loader{{block_x(), 0, 0, 0}, {}, {}, 0, rows, shared_place(rows)};
  begin_pass(work, loader);
  return loader;
}

// Starts the copies of a chunk; an empty group where there is none.
template <class V>
SLUICE_DEVICE void start_chunk(const Work& work, Loader<V>& loader) {
  using C = ChunkOf<typename V::F, V::aligned>;
  constexpr uint32_t step = V::warps * V::passes * C::bytes;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < 2 * V::M; ++i) {
    const int32_t place = V::aligned ? loader.place[i] : place_of_lane(loader.first[i]);
    const uint32_t offset = loader.at.slot * V::stage_bytes + 8 * i * C::pitch;
    if (loader.rest > 0)
      stage_row<typename V::F, V::aligned>(loader.first[i], loader.rest, place, loader.to + offset, loader.rows,
                                           offset);
    loader.first[i] += step;
  }
  async_commit();
  loader.rest = loader.rest > step ? loader.rest - step : 0;
  advance<V>(work, loader.at);
  if (loader.at.step == 0) begin_pass(work, loader);
}

// Rows g and g + 8 of the m-th 16.
template <class V>
SLUICE_DEVICE StagedRow<V::aligned ? 16 : 2> row_of(const RowTile& tile, uint32_t chunk, const std::byte* stage,
                                                    uint32_t m, uint32_t row) {
  return staged_row<typename V::F, V::aligned>(tile, m * stage_rows + row, chunk, stage + m * (V::stage_bytes / V::M),
                                               row);
}

// A lane converts half the scales of a row.
template <class V>
SLUICE_DEVICE void convert_scales(const RowTile& tile, uint32_t chunk, const std::byte* stage, WarpMemory<V>& memory) {
  constexpr uint32_t n = V::n_scales / 2;
  const uint32_t row = lane() % stage_rows, half = lane() / stage_rows;
  SLUICE_UNROLL
  for (uint32_t m = 0; m < V::M; ++m) {
    ScaleMin scales[n];
    load_scales<n>(typename V::F{}, row_of<V>(tile, chunk, stage, m, row), half * n, scales);
    SLUICE_UNROLL
    for (uint32_t i = 0; i < n; ++i) memory.scales[m][half * n + i][row] = scales[i];
  }
}

// Adds the sums of a tile up, which all warps have made, and stores them. partial: n_sums x tokens x rows.
template <class V>
SLUICE_DEVICE void add_sums_and_store(const ProductPart& part, uint32_t n_tokens, uint32_t first_row,
                                       const float* partial) {
  constexpr uint32_t n = V::tokens * V::rows, threads = 32 * V::warps;
  SLUICE_UNROLL
  for (uint32_t j = 0; j < n; j += threads) {
    const uint32_t i = j + thread_x();
    if (n < threads && i >= n) return;
    float sum = partial[i];
    SLUICE_UNROLL
    for (uint32_t s = 1; s < n_sums; ++s) sum += partial[s * n + i];
    const uint32_t token = i / V::rows, row = first_row + i % V::rows;
    if (token < n_tokens && row < part.rows) store_product(part.to, token, row, sum);
  }
}

// The same of one token, by the threads that have a row; what is there has been asked for when the tile began.
template <class V>
SLUICE_DEVICE ProductBefore before_tile(const ProductPart& part, uint32_t first_row) {
  const uint32_t row = first_row + thread_x();
  return thread_x() < V::rows && row < part.rows ? before_product(part.to, 0, row) : ProductBefore{};
}
template <class V>
SLUICE_DEVICE void add_sums_and_store(const ProductPart& part, const ProductBefore& before, uint32_t first_row,
                                       const float* partial) {
  const uint32_t row = first_row + thread_x();
  if (thread_x() >= V::rows || row >= part.rows) return;
  float sum = partial[thread_x()];
  SLUICE_UNROLL
  for (uint32_t s = 1; s < n_sums; ++s) sum += partial[s * V::rows + thread_x()];
  store_product(part.to, before, 0, row, sum);
}

// All that a block does; its first weights come while the kernel before may still run. products.prepare(chunk, n_subs)
// may load activations, convert() scales into shared memory; products.add(tile, chunk, stage, n_subs) adds a chunk to
// the first sum, products.turn() makes that the last one, and products.finish(partial) hands the sums of this warp over,
// that of the i-th turn V::warps behind the one before.
template <class V, class Products>
SLUICE_DEVICE void work_through(const ProductGroup& group, BlockMemory<V>& block, Products& products) {
  const Work work = work_of<V>(group);
  WarpMemory<V>& memory = block.warp[warp()];
  Position now{block_x(), 0, 0, 0};
  Loader<V> loader = loader_of<V>(work, memory);
  SLUICE_UNROLL
  for (uint32_t i = 0; i + 1 < V::stages; ++i) start_chunk(work, loader);
  wait_for_previous();  // no kernel writes weights; the rest is theirs
  for (uint32_t parity = 0; now.tile < group.n_tiles; parity ^= 1) {
    const ProductPart& part = part_of(group, now.tile);
    const RowTile tile = tile_of<V>(group, part, now.tile);
    float* partial = block.partial[parity % V::n_partials];
    for (uint32_t pass = 0; pass < V::passes; ++pass) {
      const uint32_t first = pass * V::warps + warp();
      products.begin();
      for (uint32_t step = 0; step < work.n_steps; ++step) {
        const uint32_t chunk = first + step * V::warps * V::passes;
        const bool any = chunk < work.n_chunks;
        const uint32_t rest = any ? work.n_subs - chunk * subs_per_chunk : 0;
        if (any) products.prepare(chunk, rest);
        async_wait<V::stages - 2>();
        warp_barrier();  // the chunk is there for all lanes, and all are done with the one before it
        const std::byte* stage = memory.stage[now.slot];
        start_chunk(work, loader);
        advance<V>(work, now);
        if (any) products.convert(tile, chunk, stage);
        if (any && rest >= subs_per_chunk) products.add(tile, chunk, stage, subs_per_chunk);
        else if (any) products.add(tile, chunk, stage, rest);
        products.turn();
      }
      if (work.n_steps % V::turns != 0) products.turn();
      products.finish(partial + first * V::tokens * V::rows);
    }
    block_barrier();
    add_sums_and_store<V>(part, group.n_tokens, tile.first_row, partial);
    if constexpr (V::n_partials == 1) block_barrier();
  }
  let_next_begin();  // not before: its blocks would crowd where those of this one happen to be few
  async_wait<0>();
}

// --- the same by whole rows ---

// What a block copies next, or works at.
struct SpanPosition {
  uint32_t tile, span, slot, use;
};

template <class V>
SLUICE_DEVICE void advance(uint32_t n_spans, SpanPosition& at) {
  if (++at.slot == V::stages) at.slot = 0, at.use ^= 1;
  if (++at.span < n_spans) return;
  at.span = 0;
  at.tile += grid_x();
}

struct NextSpan {
  SpanPosition at;
  const std::byte* from;  // of this lane's row
  uint32_t rest;          // bytes of it
};
template <class V>
SLUICE_DEVICE void begin_rows(const ProductGroup& group, NextSpan& next) {
  const uint32_t tile = next.at.tile, row = warp() * (V::rows / V::warps) + lane() % (V::rows / V::warps);
  next.from = tile_row(tile_of<V>(group, part_of(group, tile), tile), row);
  next.rest = static_cast<uint32_t>(group.row_bytes);
}

// The warp starts the copies of its share of a span's rows; of rows beyond the last, the last again. Each copy takes
// the warp some 50 cycles, so that one warp alone would hold up the others.
template <class V>
SLUICE_DEVICE void start_span(const ProductGroup& group, uint32_t n_spans, BlockMemory<V>& block, NextSpan& next) {
  using S = SpanOf<typename V::F>;
  constexpr uint32_t share = V::rows / V::warps;
  static_assert(share * V::warps == V::rows);
  SpanPosition& at = next.at;
  if (at.tile >= group.n_tiles) return;
  TransferBarrier& there = block.there[at.slot];
  const uint32_t bytes = least(S::bytes, next.rest), row = warp() * share + lane();
  if (lane() == 0) transfer_expect(there, share * bytes);
  warp_barrier();
  if (lane() < share) transfer_row(there, block.span[at.slot] + row * S::pitch, next.from, bytes);
  next.from += bytes;
  next.rest -= bytes;
  advance<V>(n_spans, at);
  if (at.span == 0) begin_rows<V>(group, next);
}

// As work_through(), with the same chunks for each warp: products.add_span<unit>(chunk, stage, n_subs) adds a chunk,
// which begins at a multiple of `unit`.
template <class V, class Products>
SLUICE_DEVICE void work_through_rows(const ProductGroup& group, BlockMemory<V>& block, Products& products) {
  static_assert(span_chunks == n_sums && V::tokens == 1);
  const Work work = work_of<V>(group);
  const uint32_t n_spans = (work.n_chunks + span_chunks - 1) / span_chunks;
  if (thread_x() == 0) SLUICE_UNROLL
  for (uint32_t i = 0; i < V::stages; ++i) transfer_init(block.there[i], V::warps);
  block_barrier();
  SpanPosition now{block_x(), 0, 0, 0};
  NextSpan next{now, nullptr, 0};
  begin_rows<V>(group, next);
  SLUICE_UNROLL
  for (uint32_t i = 0; i < V::stages; ++i) start_span<V>(group, n_spans, block, next);
  block_barrier();
  wait_for_previous();  // no kernel writes weights; the rest is theirs
  for (uint32_t parity = 0; now.tile < group.n_tiles; parity ^= 1) {
    const ProductPart& part = part_of(group, now.tile);
    const RowTile tile = tile_of<V>(group, part, now.tile);
    float* partial = block.partial[parity % V::n_partials];
    const ProductBefore before = before_tile<V>(part, tile.first_row);
    products.begin();
    for (uint32_t span = 0; span < n_spans; ++span) {
      const std::byte* stage = block.span[now.slot];
      // In the last span: earlier its blocks would crowd where those of this kernel happen to be few.
      if (span + 1 == n_spans && now.tile + grid_x() >= group.n_tiles) let_next_begin();
      SLUICE_UNROLL
      for (uint32_t i = 0; i < span_chunks; i += V::warps) {
        const uint32_t chunk = span * span_chunks + i + warp();
        const bool any = chunk < work.n_chunks;
        const uint32_t rest = any ? work.n_subs - chunk * subs_per_chunk : 0;
        if (any) products.prepare(chunk, rest);
        if (i == 0) transfer_wait(block.there[now.slot], now.use);
        if (!any) {
          products.turn();
          continue;
        }
        constexpr bool whole = SpanOf<typename V::F>::bytes / span_chunks % 16 == 0;  // else every other is odd
        if (whole) products.template add_span<whole ? 16 : 4>(chunk, stage, rest);
        else if (chunk % 2 == 0) products.template add_span<4>(chunk, stage, rest);
        else products.template add_span<2>(chunk, stage, rest);
        products.turn();
      }
      if (span + 1 == n_spans) products.finish(partial + warp() * V::tokens * V::rows);
      block_barrier();  // all are done with the span, and at last with the tile
      start_span<V>(group, n_spans, block, next);
      advance<V>(n_spans, now);
    }
    add_sums_and_store<V>(part, before, tile.first_row, partial);
  }
}

}  // namespace sluice::gpu
