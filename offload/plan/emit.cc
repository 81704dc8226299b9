// The kernels of each op, and the weights and pages that they wait for.
#include <algorithm>

#include "core/error.h"
#include "offload/plan/executor.h"

namespace sluice::plan {

// A span of the executor's own lane in the trace.
struct Executor::Span {
  Span(Trace* trace, const char* what) : trace_(trace), what_(what), start_(trace != nullptr ? now_ns() : 0) {}
  ~Span() {
    if (trace_ != nullptr) trace_->record({"executor", what_, start_, now_ns(), 0, 0});
  }
  Trace* trace_;
  const char* what_;
  uint64_t start_;
};

Status Executor::emit_op(uint32_t index) {
  const Op& op = g_.ops[index];
  const Span span(trace_, name(op).data());
  return std::visit([this](const auto& o) { return emit(o); }, op);
}

const float* Executor::vector(TensorId id) const {
  return id.valid() ? reinterpret_cast<const float*>(weights_.resident(plan_.movement.weights.of(id).front()))
                    : nullptr;
}

void Executor::norm(TensorId weight, float eps, const float* in, uint32_t n_rows, float* out) {
  queue_.launch(RmsNormCall{in, vector(weight), eps, n_rows, g_.hidden_size, out});
  acts_of_ = nullptr;
}

// h += rms(x; weight)
void Executor::add_normed(TensorId weight, float eps) {
  queue_.launch(RmsNormCall{ws_.x, vector(weight), eps, n_tokens_, g_.hidden_size, ws_.h, true});
  acts_of_ = nullptr;
}

void Executor::head_norm(TensorId weight, float eps, float* x, uint32_t n_heads) {
  if (weight.valid()) queue_.launch(RmsNormCall{x, vector(weight), eps, n_tokens_ * n_heads, g_.head_dim, x});
}

// x in the form that a product wants; quantized once for all products that read it.
const std::byte* Executor::activations(const float* x, ActFormat format, uint32_t n_rows, uint32_t cols) {
  if (format == ActFormat::f32) return reinterpret_cast<const std::byte*>(x);
  if (acts_of_ != x || acts_format_ != format) queue_.launch(QuantizeCall{x, format, n_rows, cols, ws_.acts});
  acts_of_ = x;
  acts_format_ = format;
  return ws_.acts;
}

Status Executor::product(TensorId weights, TensorId bias, const float* x, uint32_t n_rows, float* out,
                         uint32_t out_stride, bool accumulate) {
  const TensorSpec& t = g_.tensor(weights);
  const ActFormat format = device_.act_format(t.dtype, plan_.numerics.compute);
  const std::byte* acts = activations(x, format, n_rows, t.cols);
  for (const Tile& tile : plan_.movement.weights.of(weights)) {
    SLUICE_ASSIGN_OR_RETURN(const std::byte* data, weights_.use(tile, queue_));
    const float* b = bias.valid() ? vector(bias) + tile.row_begin : nullptr;
    queue_.launch(MatmulCall{data, t.dtype, tile.row_end - tile.row_begin, t.cols, acts, format, n_rows,
                             out + tile.row_begin, out_stride, b, accumulate});
    weights_.used(tile, queue_);
    SLUICE_RETURN_IF_ERROR(weights_.run_ahead());
  }
  return {};
}

// --- embed -----------------------------------------------------------------------------------------

Status Executor::emit(const EmbedOp& op) {
  const TensorSpec& table = g_.tensor(op.table);
  SLUICE_RETURN_IF_ERROR(gather_from_disk(table));
  queue_.launch(GatherRowsCall{ws_.embed_rows, table.dtype, n_tokens_, table.cols, op.scale, ws_.h});
  return {};
}

// Finds each token's row: in a tile that stays, or read from its place in the file.
Status Executor::gather_from_disk(const TensorSpec& table) {
  const TensorId id = std::get<EmbedOp>(g_.ops.front()).table;
  const auto tiles = plan_.movement.weights.of(id);
  requests_.clear();
  for (uint32_t t = 0; t < n_tokens_; ++t) {
    const auto row = static_cast<uint32_t>(batch_->tokens[t].token);
    const auto tile =
        std::partition_point(tiles.begin(), tiles.end(), [row](const Tile& x) { return x.row_end <= row; });
    if (const std::byte* data = weights_.resident(*tile); data != nullptr) {
      ws_.embed_rows[t] = data + (row - tile->row_begin) * table.row_size();
      continue;
    }
    const Extent extent{table.extent.file, table.extent.offset + row * table.row_size(), table.row_size()};
    std::byte* slot = ws_.embed_slots + t * ws_.embed_slot;
    ws_.embed_rows[t] = slot + payload_offset(extent);
    requests_.push_back({IoRequest::Op::read, extent, slot});
  }
  request_events_.resize(requests_.size());
  store_.submit(requests_, request_events_);
  for (const Event& event : request_events_) queue_.wait(event);
  return {};
}

// --- attention -------------------------------------------------------------------------------------

void Executor::rotate(const AttentionInOp& op, float* x, uint32_t n_heads) {
  const RopeSpec& rope = g_.ropes[op.rope];
  const float* table = ws_.rope_tables;
  for (uint32_t i = 0; i < op.rope; ++i) table += uint64_t{plan_.workspace.tokens} * g_.ropes[i].n_rot;
  if (rope.n_rot > 0) queue_.launch(RopeCall{x, table, n_tokens_, n_heads, g_.head_dim, rope.n_rot, rope.pairs});
}

Status Executor::emit(const AttentionInOp& op) {
  const uint32_t q_size = g_.n_heads * g_.head_dim, kv_size = g_.n_kv_heads * g_.head_dim;
  norm(op.norm, op.eps, ws_.h, n_tokens_, ws_.x);
  SLUICE_RETURN_IF_ERROR(product(op.wq, op.bq, ws_.x, n_tokens_, ws_.q, q_size, false));
  SLUICE_RETURN_IF_ERROR(product(op.wk, op.bk, ws_.x, n_tokens_, ws_.k, kv_size, false));
  SLUICE_RETURN_IF_ERROR(product(op.wv, op.bv, ws_.x, n_tokens_, ws_.v, kv_size, false));
  head_norm(op.q_norm, op.eps, ws_.q, g_.n_heads);
  head_norm(op.k_norm, op.eps, ws_.k, g_.n_kv_heads);
  rotate(op, ws_.q, g_.n_heads);
  rotate(op, ws_.k, g_.n_kv_heads);

  // New tokens go to the last pages of their sequences, which are always in memory.
  KvSpan* spans = ws_.spans + uint64_t{op.layer} * 2 * plan_.workspace.sequences;
  for (uint32_t s = 0; s < sequences_.size(); ++s) {
    const StepSequence& sequence = sequences_[s];
    SLUICE_RETURN_IF_ERROR(kv_.make_room(sequence.id, op.layer));
    const uint32_t first = sequence.before / plan_.numerics.page_tokens;
    spans[s] = kv_.span(sequence.id, op.layer, first, kv_.n_pages(sequence.id) - first);
  }
  queue_.launch(KvAppendCall{ws_.k, ws_.v, ws_.slots, spans, n_tokens_, g_.n_kv_heads, g_.head_dim,
                             plan_.numerics.page_tokens, plan_.numerics.kv_type});
  return {};
}

Status Executor::emit(const AttentionOp& op) {
  const uint32_t group = plan_.movement.kv_group_pages;
  bool spilled = false;
  uint32_t n_pages = 0;
  for (const StepSequence& s : sequences_) {
    spilled |= kv_.any_spilled(s.id, op.layer);
    n_pages = std::max(n_pages, kv_.n_pages(s.id));
  }
  group_done_ = {};
  if (spilled) group_done_[0] = queue_.signal();  // until then kv_append uses the first set of spans
  const uint32_t step = spilled ? group : n_pages;
  for (uint32_t first = 0; first < n_pages; first += step)
    SLUICE_RETURN_IF_ERROR(attend(op, first, step, first == 0, first + step >= n_pages));
  if (group != 0) {
    const Event after = queue_.signal();
    for (const StepSequence& s : sequences_) kv_.settle(s.id, op.layer, after);
  }
  return {};
}

// Attention over pages [first, first + n) of the layer. Two sets of spans are used in turn.
Status Executor::attend(const AttentionOp& op, uint32_t first, uint32_t n, bool start, bool finish) {
  const uint32_t parity = (first / n + 1) % 2;
  SLUICE_RETURN_IF_ERROR(group_done_[parity].wait());
  KvSpan* spans = ws_.spans + (uint64_t{op.layer} * 2 + parity) * plan_.workspace.sequences;
  ready_.clear();
  for (uint32_t s = 0; s < sequences_.size(); ++s) {
    SLUICE_RETURN_IF_ERROR(kv_.bring(sequences_[s].id, op.layer, first, n, ready_));
    spans[s] = kv_.span(sequences_[s].id, op.layer, first, n);
  }
  for (const Event& event : ready_) queue_.wait(event);
  queue_.launch(AttentionCall{ws_.q, ws_.slots, spans, n_tokens_, g_.n_heads, g_.n_kv_heads, g_.head_dim,
                              plan_.numerics.page_tokens, plan_.numerics.kv_type, op.scale, op.softcap, op.window,
                              tree_, start, finish, ws_.state, ws_.attended});
  acts_of_ = nullptr;
  if (start && finish) return {};
  const Event after = queue_.signal();
  group_done_[parity] = after;
  for (const StepSequence& s : sequences_) kv_.release(s.id, op.layer, first, n, after);
  return {};
}

Status Executor::emit(const AttentionOutOp& op) {
  if (!op.post_norm.valid()) return product(op.wo, op.bo, ws_.attended, n_tokens_, ws_.h, g_.hidden_size, true);
  SLUICE_RETURN_IF_ERROR(product(op.wo, op.bo, ws_.attended, n_tokens_, ws_.x, g_.hidden_size, false));
  add_normed(op.post_norm, op.eps);
  return {};
}

// --- FFN, head -------------------------------------------------------------------------------------

Status Executor::emit(const FfnOp& op) {
  const uint32_t width = g_.tensor(op.gate).rows;
  norm(op.norm, op.eps, ws_.h, n_tokens_, ws_.x);
  SLUICE_RETURN_IF_ERROR(product(op.gate, {}, ws_.x, n_tokens_, ws_.gate, width, false));
  SLUICE_RETURN_IF_ERROR(product(op.up, {}, ws_.x, n_tokens_, ws_.up, width, false));
  queue_.launch(GatedActCall{ws_.gate, ws_.up, op.activation, n_tokens_, width, ws_.gate});
  acts_of_ = nullptr;
  const bool normed = op.post_norm.valid();
  float* out = normed ? ws_.x : ws_.h;
  SLUICE_RETURN_IF_ERROR(product(op.down, {}, ws_.gate, n_tokens_, out, g_.hidden_size, !normed));
  if (normed) add_normed(op.post_norm, op.eps);
  tap(op_);
  return {};
}

// The layer that ends at op `index`, copied if the batch asked for it.
void Executor::tap(uint32_t index) {
  if (batch_->tap_layers.empty() || n_logits_ == 0) return;
  uint32_t layer = 0;
  for (uint32_t i = 0; i < index; ++i)
    if (const auto* in = std::get_if<AttentionInOp>(&g_.ops[i])) layer = in->layer;
  for (size_t i = 0; i < batch_->tap_layers.size(); ++i)
    if (batch_->tap_layers[i] == layer)
      queue_.launch(
          CopyRowsCall{ws_.h, ws_.logit_index, n_logits_, g_.hidden_size, ws_.taps + i * n_logits_ * g_.hidden_size});
}

Status Executor::emit(const RouteOp& op) {
  norm(op.norm, op.eps, ws_.h, n_tokens_, ws_.x);
  const uint32_t n_experts = g_.tensor(op.router).rows;
  SLUICE_RETURN_IF_ERROR(product(op.router, {}, ws_.x, n_tokens_, ws_.router, n_experts, false));
  queue_.launch(RouteCall{ws_.router, n_tokens_, n_experts, op.used, ws_.expert_ids, ws_.expert_weights});
  return {};
}

Status Executor::emit(const ExpertsOp& op) {
  if (experts_ == nullptr) return error(Code::unsupported, "{}: this executor was made without experts", g_.name);
  const auto& route = std::get<RouteOp>(g_.ops[op_ - 1]);
  acts_of_ = nullptr;
  SLUICE_RETURN_IF_ERROR(experts_->run({&op, op_, route.used, n_tokens_}, ws_));
  tap(op_);
  return {};
}

Status Executor::emit(const HeadOp& op) {
  if (n_logits_ == 0) {
    // The tiles are passed by all the same, so that every pass reads the same blocks in the same order.
    for (const Tile& tile : plan_.movement.weights.of(op.output)) {
      SLUICE_ASSIGN_OR_RETURN([[maybe_unused]] const std::byte* data, weights_.use(tile, queue_));
      weights_.used(tile, queue_);
    }
    return {};
  }
  queue_.launch(CopyRowsCall{ws_.h, ws_.logit_index, n_logits_, g_.hidden_size, ws_.x});
  norm(op.norm, op.eps, ws_.x, n_logits_, ws_.x);
  SLUICE_RETURN_IF_ERROR(product(op.output, {}, ws_.x, n_logits_, ws_.logits, g_.n_vocab, false));
  if (op.softcap > 0) queue_.launch(SoftcapCall{ws_.logits, n_logits_, g_.n_vocab, op.softcap});
  return {};
}

}  // namespace sluice::plan
