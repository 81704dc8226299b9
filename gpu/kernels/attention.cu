// Attention over paged keys and values, by pages and with an online softmax (attention_page.h; Milakov & Gimelshein,
// arXiv:1805.02867; Dao et al., arXiv:2205.14135).
//
// Two ways of the same sums, so that they give the same bits:
//   split-KV, for decoding and draft trees: a block has a page, or some, of a tile of 4 rows and writes each page's
//     (m, l, O) to scratch memory; attention_merge.cu adds the pages up in their order. attention_pages.cu takes the
//     place of the first of these for the common pages and heads.
//   whole, for prompts that attention_prompt.cu does not serve (f32 pages, odd heads): a block has a tile of 8 rows
//     and goes through their pages in order, O in shared memory.
// Parts of a sequence, cut between pages by spans or by the size of the scratch memory, carry (m, l, O) in `state`.
//
// Bytes: split-KV reads each page once for 4 rows (the heads that share a kv head, and tokens of a draft), and
// writes and reads 4 * (head_dim + 2) bytes a page and row; bound by device memory. Whole reads a page for every 8
// rows, mostly from the L2. Flops: 4 * head_dim a cell and row, in f32 by fma; whole is bound by these and by the
// reading of shared memory.
#include <algorithm>
#include <cmath>

#include "gpu/kernels/attention_parts.h"
#include "gpu/kernels/attention_prompt.h"
#include "gpu/kernels/attention_tile.h"
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/joint.h"
#include "gpu/kernels/kernels.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t split_rows = 4, whole_rows = 8;
constexpr uint32_t max_head_dim = 512, max_page_tokens = 1024;

SLUICE_DEVICE void store_partials(const AttentionCall& call, const HeadShape& shape, const PagePart& part,
                                  uint32_t page, const QueryRow* rows, const Run& run,
                                  const TileMemory<split_rows>& memory, const PageSums* page_sums) {
  for (uint32_t r = run.first; r < run.last; ++r) {
    float* partial = partial_of(call, part, page, rows[r].token, rows[r].head);
    if (thread_x() == 0) {
      partial[0] = page_sums[r].m;
      partial[1] = page_sums[r].l;
    }
    for (uint32_t d = thread_x(); d < call.head_dim; d += attention_threads)
      partial[2 + d] = page_value(shape, memory, r, d);
  }
}

// Pages block_y, block_y + grid_y, … of a part, from the first that the run may see.
template <class T>
SLUICE_DEVICE void attend_part(const AttentionCall& call, const HeadShape& shape, const PagePart& part,
                               const QueryRow* rows, const Run& run, const TileMemory<split_rows>& memory,
                               PageSums* page_sums) {
  const KvSpan span = call.spans[rows[run.first].slot.seq];
  uint32_t first = span.first_page + part.first, last = first + part.n;
  first = run.begin / call.page_tokens > first ? run.begin / call.page_tokens : first;
  const uint32_t end = (run.end + call.page_tokens - 1) / call.page_tokens;
  last = end < last ? end : last;
  for (uint32_t index = first + block_y(); index < last; index += grid_y()) {
    if (!any_sees(rows, run, index * call.page_tokens, (index + 1) * call.page_tokens)) continue;
    const Page<T> page = page_of<T>(call, span, run, index);
    attend_page<T, split_rows>(call, shape, span, rows, run, page, memory, page_sums);
    block_barrier();
    store_partials(call, shape, part, index - span.first_page - part.first, rows, run, memory, page_sums);
  }
}

template <class T>
SLUICE_KERNEL void attention_split_kernel(AttentionCall call, HeadShape shape, PagePart part) {
  SLUICE_DYNAMIC_SHARED(float, shared);
  SLUICE_SHARED(QueryRow, rows, [split_rows]);
  SLUICE_SHARED(PageSums, page_sums, [split_rows]);
  const TileMemory<split_rows> memory = tile_memory<split_rows>(shared, shape, call.page_tokens);
  load_rows(call, split_rows, rows);
  block_barrier();
  load_queries<split_rows>(call, shape, rows, memory.q);
  block_barrier();
  const uint32_t n = n_tile_rows(call, split_rows);
  for (uint32_t first = 0; first < n;) {
    const Run run = next_run(call, rows, first, n);
    if (run.begin < run.end) attend_part<T>(call, shape, part, rows, run, memory, page_sums);
    first = run.last;
  }
}

// What the rows of a tile have so far.
struct Running {
  PageSums sums[whole_rows];
  Factors factors[whole_rows];  // of the page that is being added
};

SLUICE_DEVICE void begin_rows(const AttentionCall& call, const HeadShape& shape, const QueryRow* rows, uint32_t n,
                              const TileMemory<whole_rows>& memory, Running& running) {
  for (uint32_t i = thread_x(); i < n * shape.padded; i += attention_threads) {
    const uint32_t r = i / shape.padded, d = i % shape.padded;
    memory.o[i] = call.start || d >= call.head_dim ? 0.0f : state_of(call, rows[r])[2 + d];
  }
  if (thread_x() >= n) return;
  running.sums[thread_x()] = {-INFINITY, 0.0f};
  if (call.start) return;
  const float* state = state_of(call, rows[thread_x()]);
  running.sums[thread_x()] = {state[0], state[1]};
}

SLUICE_DEVICE void end_rows(const AttentionCall& call, const HeadShape& shape, const QueryRow* rows, uint32_t n,
                            const TileMemory<whole_rows>& memory, const Running& running) {
  for (uint32_t i = thread_x(); i < n * shape.padded; i += attention_threads) {
    const uint32_t r = i / shape.padded, d = i % shape.padded;
    if (d >= call.head_dim) continue;
    if (call.state != nullptr) state_of(call, rows[r])[2 + d] = memory.o[i];
    if (call.finish) call.out[index_of(call, rows[r]) * call.head_dim + d] = finished(memory.o[i], running.sums[r].l);
  }
  if (call.state == nullptr || thread_x() >= n) return;
  float* state = state_of(call, rows[thread_x()]);
  state[0] = running.sums[thread_x()].m;
  state[1] = running.sums[thread_x()].l;
}

// All pages that a run may see, in order.
template <class T>
SLUICE_DEVICE void attend_run(const AttentionCall& call, const HeadShape& shape, const QueryRow* rows, const Run& run,
                              const TileMemory<whole_rows>& memory, PageSums* page_sums, Running& running) {
  const KvSpan span = call.spans[rows[run.first].slot.seq];
  for (uint32_t index = run.begin / call.page_tokens; index * call.page_tokens < run.end; ++index) {
    if (!any_sees(rows, run, index * call.page_tokens, (index + 1) * call.page_tokens)) continue;
    const Page<T> page = page_of<T>(call, span, run, index);
    attend_page<T, whole_rows>(call, shape, span, rows, run, page, memory, page_sums);
    if (const uint32_t r = thread_x(); r < whole_rows && page_sums[r].l != 0.0f)
      running.factors[r] = merge_page(running.sums[r], page_sums[r]);
    block_barrier();
    for (uint32_t i = thread_x(); i < whole_rows * shape.padded; i += attention_threads) {
      const uint32_t r = i / shape.padded;
      if (page_sums[r].l == 0.0f) continue;
      memory.o[i] = merge_value(running.factors[r], memory.o[i], page_value(shape, memory, r, i % shape.padded));
    }
  }
}

template <class T>
SLUICE_KERNEL void attention_whole_kernel(AttentionCall call, HeadShape shape) {
  SLUICE_DYNAMIC_SHARED(float, shared);
  SLUICE_SHARED(QueryRow, rows, [whole_rows]);
  SLUICE_SHARED(PageSums, page_sums, [whole_rows]);
  SLUICE_SHARED(Running, running, [1]);
  const TileMemory<whole_rows> memory = tile_memory<whole_rows>(shared, shape, call.page_tokens);
  load_rows(call, whole_rows, rows);
  block_barrier();
  load_queries<whole_rows>(call, shape, rows, memory.q);
  block_barrier();
  const uint32_t n = n_tile_rows(call, whole_rows);
  begin_rows(call, shape, rows, n, memory, running[0]);
  block_barrier();
  for (uint32_t first = 0; first < n;) {
    const Run run = next_run(call, rows, first, n);
    if (run.begin < run.end) attend_run<T>(call, shape, rows, run, memory, page_sums, running[0]);
    first = run.last;
  }
  block_barrier();
  end_rows(call, shape, rows, n, memory, running[0]);
}

// --- host ---

uint64_t state_bytes(const AttentionCall& call) {  // of one token
  return uint64_t{call.n_heads} * (uint64_t{call.head_dim} + 2) * sizeof(float);
}

HeadShape head_shape(const AttentionCall& call) {
  const uint32_t values = 16 / static_cast<uint32_t>(kv_bytes(call.type));
  const uint32_t chunks = blocks_for(call.head_dim, values);
  return {chunks, chunks * values, attention_threads / chunks};
}

// rows: of a tile; o: whether it holds O.
LaunchShape tile_shape(const AttentionCall& call, uint32_t rows, bool o) {
  const HeadShape shape = head_shape(call);
  const uint32_t group = call.n_heads / call.n_kv_heads;
  const uint32_t floats = rows * (shape.padded * (1 + shape.cell_groups + (o ? 1 : 0)) + call.page_tokens);
  return {.grid_x = blocks_for(uint64_t{call.n_tokens} * group, rows) * call.n_kv_heads,
          .block_x = attention_threads,
          .shared_bytes = floats * static_cast<uint32_t>(sizeof(float))};
}

Status whole(cudaStream_t stream, const AttentionCall& call) {
  const LaunchInfo counted = launch_info("attention", call);
  const LaunchShape shape = tile_shape(call, whole_rows, true);
  if (call.type == KvType::f16)
    return launch(stream, counted, shape, attention_whole_kernel<uint16_t>, call, head_shape(call));
  return launch(stream, counted, shape, attention_whole_kernel<float>, call, head_shape(call));
}

// The most pages that a sequence of the batch has at hand, or will have.
uint32_t most_pages(const AttentionCall& call) {
  if (call.most_pages > 0) return call.most_pages;
  uint32_t most = 0;
  for (uint32_t t = 0; t < call.n_tokens; ++t) most = std::max(most, call.spans[call.tokens[t].seq].n_pages);
  return most;
}

// Some four blocks for each SM.
uint32_t page_blocks(uint32_t tiles, uint32_t pages, const KernelContext& context) {
  return std::clamp<uint32_t>(blocks_for(uint64_t{4} * context.n_sms, tiles), 1, std::min(pages, most_blocks_y));
}

Status split_part(cudaStream_t stream, const LaunchInfo& counted, const AttentionCall& call, const PagePart& part,
                  uint32_t pages, const Q8Out& quantized, const KernelContext& context) {
  const Tables tables = tables_of(stream, call);
  if (pages > 0 && attention_pages_serves(call)) {
    SLUICE_RETURN_IF_ERROR(attention_pages(stream, counted, call, tables, part, pages, context));
  } else if (pages > 0) {
    LaunchShape shape = tile_shape(call, split_rows, false);
    shape.grid_y = page_blocks(shape.grid_x, pages, context);
    const HeadShape head = head_shape(call);
    SLUICE_RETURN_IF_ERROR(call.type == KvType::f16
                               ? launch(stream, counted, shape, attention_split_kernel<uint16_t>, call, head, part)
                               : launch(stream, counted, shape, attention_split_kernel<float>, call, head, part));
  }
  return attention_merge(stream, call, tables, part, pages, quantized);
}

// As many pages at a time as the scratch memory has room for; it also has the state, where the call has none. One
// launch counts for the whole call.
Status split(cudaStream_t stream, AttentionCall call, const Q8Out& quantized, const KernelContext& context) {
  LaunchInfo counted = launch_info("attention", call);
  auto* scratch = reinterpret_cast<float*>(context.scratch);
  const uint64_t token_bytes = uint64_t{call.n_tokens} * state_bytes(call);
  const uint64_t room = context.scratch_bytes / token_bytes - 1;
  const auto capacity = static_cast<uint32_t>(std::min<uint64_t>(room, 1u << 30));
  const uint32_t pages = most_pages(call);
  const bool start = call.start, finish = call.finish;
  if (call.state == nullptr && capacity < pages) call.state = scratch;
  uint32_t first = 0;
  do {
    const uint32_t n = std::min(capacity, pages - first);
    call.start = start && first == 0;
    call.finish = finish && first + n >= pages;
    const PagePart part{first, capacity, scratch + token_bytes / sizeof(float)};
    SLUICE_RETURN_IF_ERROR(split_part(stream, counted, call, part, n, quantized, context));
    counted.bytes = counted.flops = 0;
    first += n;
  } while (first < pages);
  return {};
}

// Tokens [first, first + n) of a call.
AttentionCall some_tokens(AttentionCall call, uint32_t first, uint32_t n) {
  const uint64_t values = uint64_t{first} * call.n_heads * call.head_dim;
  call.q += values;
  call.out = call.out == nullptr ? nullptr : call.out + values;
  call.tokens += first;
  if (call.state != nullptr) call.state += first * state_bytes(call) / sizeof(float);
  call.n_tokens = n;
  return call;
}

Status check(const AttentionCall& call) {
  const bool heads = call.n_kv_heads > 0 && call.n_heads % call.n_kv_heads == 0;
  if (heads && call.head_dim > 0 && call.head_dim <= max_head_dim && call.page_tokens > 0 &&
      call.page_tokens <= max_page_tokens)
    return {};
  return Status(Code::unsupported, "gpu: no attention kernel for " + std::to_string(call.n_heads) + " heads of " +
                                       std::to_string(call.head_dim) + ", " + std::to_string(call.n_kv_heads) +
                                       " kv heads and pages of " + std::to_string(call.page_tokens));
}

bool is_prompt(const AttentionCall& call) { return call.prompt || call.n_tokens > decode_tokens; }

// Page by page, for few tokens and trees. Of what begins and ends here nobody asks for the state.
Status by_pages(cudaStream_t stream, AttentionCall call, Q8Out quantized, const KernelContext& context) {
  if (call.start && call.finish) call.state = nullptr;
  const uint64_t rows = context.scratch_bytes / state_bytes(call);
  if (rows < 2)
    return Status(Code::over_budget, "gpu: attention needs " + std::to_string(2 * state_bytes(call)) +
                                         " bytes of scratch memory, there are " +
                                         std::to_string(context.scratch_bytes));
  const auto at_once = static_cast<uint32_t>(std::min<uint64_t>(call.n_tokens, rows / 2));
  for (uint32_t t = 0; t < call.n_tokens; t += at_once) {
    const AttentionCall some = some_tokens(call, t, std::min(at_once, call.n_tokens - t));
    SLUICE_RETURN_IF_ERROR(split(stream, some, quantized, context));
    if (quantized.rows != nullptr) quantized.rows += at_once * quantized.layout.row_bytes;
  }
  return {};
}

}  // namespace

Status run(cudaStream_t stream, const AttentionCall& call, const KernelContext& context) {
  if (call.n_tokens == 0 || call.n_heads == 0) return {};
  SLUICE_RETURN_IF_ERROR(check(call));
  if (is_prompt(call) && attention_prompt_serves(call)) return attention_prompt(stream, call, context.n_sms);
  if (is_prompt(call) && !call.tree) return whole(stream, call);
  return by_pages(stream, call, {}, context);
}

bool joins(const AttentionCall& call, const QuantizeCall& next) {
  return !is_prompt(call) && call.finish && call.n_tokens > 0 && call.head_dim % 32 == 0 &&
         quantizes(next, call.out, call.n_tokens, call.n_heads * call.head_dim);
}

Status run_joint(cudaStream_t stream, const AttentionCall& call, const QuantizeCall& quantize,
                 const KernelContext& context) {
  SLUICE_RETURN_IF_ERROR(check(call));
  return by_pages(stream, call, {quantize.out, q8_layout(quantize.cols)}, context);
}

}  // namespace sluice::gpu
