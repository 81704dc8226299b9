#include "core/kernel.h"

#include <algorithm>

namespace sluice {
namespace {

// A q8 row costs a byte for each value and three words for each 32, one of wide8 a byte and a word for each 256.
uint64_t act_bytes(ActFormat format, uint64_t values) {
  switch (format) {
    case ActFormat::f32: return values * 4;
    case ActFormat::q8: return values + values / 32 * 12;
    case ActFormat::bf16: return values * 2;
    case ActFormat::wide8: return values + values / 64;
  }
  return 0;
}

struct CostOf {
  Cost operator()(const GatherRowsCall& c) const {
    return {c.n_rows * (row_bytes(c.dtype, c.cols) + c.cols * 4ull), uint64_t{c.n_rows} * c.cols};
  }
  Cost operator()(const RmsNormCall& c) const {
    const uint64_t rows = (c.accumulate ? 3ull : 2ull) * c.n_rows + 1;
    return {rows * c.cols * 4, 4ull * c.n_rows * c.cols};
  }
  Cost operator()(const QuantizeCall& c) const {
    const uint64_t values = uint64_t{c.n_rows} * c.cols;
    return {values * 4 + act_bytes(c.format, values), 3 * values};
  }
  Cost operator()(const MatmulCall& c) const {
    return {c.rows * row_bytes(c.dtype, c.cols) + act_bytes(c.x_format, uint64_t{c.n_tokens} * c.cols) +
                uint64_t{c.n_tokens} * c.rows * 4,
            2ull * c.n_tokens * c.rows * c.cols};
  }
  Cost operator()(const RopeTableCall& c) const {
    return {uint64_t{c.n_tokens} * c.n_rot * 4, uint64_t{c.n_tokens} * c.n_rot};
  }
  Cost operator()(const RopeCall& c) const {
    const uint64_t values = uint64_t{c.n_tokens} * c.n_heads * c.n_rot;
    return {values * 8, values * 3};
  }
  Cost operator()(const KvAppendCall& c) const {
    const uint64_t values = 2ull * c.n_tokens * c.n_kv_heads * c.head_dim;
    return {values * (4 + kv_bytes(c.type)), values};
  }
  Cost operator()(const AttentionCall& c) const {
    // Its tables may be out of reach: all that it can serve.
    const uint64_t most = uint64_t{c.most_pages} * c.page_tokens;
    if (most > 0) return attention(c, c.n_tokens * most, c.most_pages);
    uint64_t cells = 0;  // of all tokens together
    uint64_t pages = 0;
    for (uint32_t t = 0; t < c.n_tokens; ++t) {
      const KvSpan& span = c.spans[c.tokens[t].seq];
      const uint64_t first = uint64_t{span.first_page} * c.page_tokens;
      const uint64_t seen = c.tokens[t].cell + 1ull;
      if (seen > first) cells += std::min(seen - first, uint64_t{span.n_pages} * c.page_tokens);
      if (t == 0 || c.tokens[t].seq != c.tokens[t - 1].seq) pages += span.n_pages;
    }
    return attention(c, cells, pages);
  }
  static Cost attention(const AttentionCall& c, uint64_t cells, uint64_t pages) {
    const uint64_t kv = 2 * pages * c.page_tokens * c.n_kv_heads * c.head_dim * kv_bytes(c.type);
    return {kv + 8ull * c.n_tokens * c.n_heads * c.head_dim, 4 * cells * c.n_heads * c.head_dim};
  }
  Cost operator()(const MergeStatesCall& c) const {
    const uint64_t values = uint64_t{c.n_rows} * c.head_dim;
    return {values * 12 + c.n_rows * 16ull, values * 4};
  }
  Cost operator()(const GatedActCall& c) const {
    const uint64_t values = uint64_t{c.n_rows} * c.cols;
    return {values * 12, values * 8};
  }
  Cost operator()(const SoftcapCall& c) const {
    const uint64_t values = uint64_t{c.n_rows} * c.cols;
    return {values * 8, values * 8};
  }
  Cost operator()(const CopyRowsCall& c) const { return {uint64_t{c.n_rows} * c.cols * 8, 0}; }
  Cost operator()(const RouteCall& c) const {
    return {uint64_t{c.n_tokens} * (c.n_experts + 2ull * c.k) * 4, 4ull * c.n_tokens * c.n_experts};
  }
  Cost operator()(const MergeCall& c) const {
    return {uint64_t{c.n_tokens} * (c.k + 1ull) * c.cols * 4, 2ull * c.n_tokens * c.k * c.cols};
  }
  // How many are asked for only the device knows; they are few.
  Cost operator()(const BestLogitsCall& c) const {
    const uint64_t values = uint64_t{c.n_rows} * c.n_vocab;
    return {values * 4, values};
  }
};

struct NameOf {
  std::string_view operator()(const GatherRowsCall&) const { return "gather_rows"; }
  std::string_view operator()(const RmsNormCall&) const { return "rms_norm"; }
  std::string_view operator()(const QuantizeCall&) const { return "quantize"; }
  std::string_view operator()(const MatmulCall&) const { return "matmul"; }
  std::string_view operator()(const RopeTableCall&) const { return "rope_table"; }
  std::string_view operator()(const RopeCall&) const { return "rope"; }
  std::string_view operator()(const KvAppendCall&) const { return "kv_append"; }
  std::string_view operator()(const AttentionCall&) const { return "attention"; }
  std::string_view operator()(const MergeStatesCall&) const { return "merge_states"; }
  std::string_view operator()(const GatedActCall&) const { return "gated_act"; }
  std::string_view operator()(const SoftcapCall&) const { return "softcap"; }
  std::string_view operator()(const CopyRowsCall&) const { return "copy_rows"; }
  std::string_view operator()(const RouteCall&) const { return "route"; }
  std::string_view operator()(const MergeCall&) const { return "merge"; }
  std::string_view operator()(const BestLogitsCall&) const { return "best_logits"; }
};

}  // namespace

Cost cost(const KernelCall& call) { return std::visit(CostOf{}, call); }
std::string_view name(const KernelCall& call) { return std::visit(NameOf{}, call); }

}  // namespace sluice
