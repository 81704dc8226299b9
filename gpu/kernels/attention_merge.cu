// The kernel that adds pages up (attention_merge.h), where there are too many for a block of attention_pages.cu to do
// it.
//
// Bytes: 4 * (head_dim + 2) a page and row. Bound by device memory for many pages, by the latency of two table
// look-ups and a launch for few.
#include "gpu/kernels/attention_merge.h"

namespace sluice::gpu {
namespace {

// A lane has a column of a row; with a state the warp has all columns in turn.
SLUICE_KERNEL void attention_merge_kernel(AttentionCall call, Tables tables, PagePart part, Q8Out quantized) {
  take_turn();
  const uint32_t token = block_x() / call.n_heads, head = block_x() % call.n_heads;
  QueryRow row{slot_of(call, tables, token), token, head, 0, 0};
  const KvSpan span = span_of(call, tables, token, row.slot.seq);
  find_visible(call, span, row);
  merge_row<1>(call, part, quantized, {token, head, seen_pages(call, part, row, span.first_page)}, block_y() * 32,
               32 * grid_y());
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
