// The kernels of each op, and the weights that they wait for. Those of attention are in attend.cc.
#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "offload/plan/executor.h"
#include "offload/plan/span.h"

namespace sluice::plan {

Status Executor::emit_op(uint32_t index) {
  const Op& op = g_.ops[index];
  const Span span(trace_, ranges_, {"executor", name(op).data(), op_names_[index].c_str()});
  return std::visit([this](const auto& o) { return emit(o); }, op);
}

// The streams of all sites run ahead, whoever computes now.
Status Executor::run_ahead() {
  for (Site& site : sites_) SLUICE_RETURN_IF_ERROR(site.weights->run_ahead());
  return {};
}

const float* Executor::vector(TensorId id) {
  if (!id.valid()) return nullptr;
  return reinterpret_cast<const float*>(at().weights->resident(plan_.movement.weights.of(id).front()));
}

void Executor::norm(TensorId weight, float eps, const float* in, uint32_t n_rows, float* out) {
  launch(RmsNormCall{in, vector(weight), eps, n_rows, g_.hidden_size, out});
  at().acts_of = nullptr;
}

// h += rms(x; weight)
void Executor::add_normed(TensorId weight, float eps) {
  launch(RmsNormCall{ws().x, vector(weight), eps, n_tokens_, g_.hidden_size, ws().h, true});
  at().acts_of = nullptr;
}

void Executor::head_norm(TensorId weight, float eps, float* x, uint32_t n_heads) {
  if (weight.valid()) launch(RmsNormCall{x, vector(weight), eps, n_tokens_ * n_heads, g_.head_dim, x});
}

// x in the form that a product wants; quantized once for all products that read it.
const std::byte* Executor::activations(const float* x, ActFormat format, uint32_t n_rows, uint32_t cols) {
  if (format == ActFormat::f32) return reinterpret_cast<const std::byte*>(x);
  Site& site = at();
  if (site.acts_of != x || site.acts_format != format) launch(QuantizeCall{x, format, n_rows, cols, site.ws.acts});
  site.acts_of = x;
  site.acts_format = format;
  return site.ws.acts;
}

Status Executor::product(TensorId weights, TensorId bias, const float* x, uint32_t n_rows, float* out,
                         uint32_t out_stride, bool accumulate) {
  const Product whole{weights, {0, g_.tensor(weights).rows}, bias, out, out_stride, accumulate};
  return products({&whole, 1}, x, n_rows);
}

// Tiles that stay come first: an accelerator does many of them in one kernel, while the others are on their way. Where
// these are more than there is room for, they are better taken in turn, or nothing would be on its way meanwhile.
Status Executor::products(std::span<const Product> list, const float* x, uint32_t n_rows) {
  const bool in_turn = streamed_bytes(list) > plan_.movement.sites[site_].staging_bytes / 2;
  for (const bool stays : {true, false}) {
    TileGroup group;
    for (const Product& product : list)
      for (const Tile& tile : plan_.movement.weights.of(product.weights)) {
        const Rows rows = tile.within(product.rows);
        const bool now = in_turn ? stays : stays == (at().weights->resident(tile) != nullptr);
        if (rows.begin == rows.end || !now) continue;
        if (!joins(group, tile)) SLUICE_RETURN_IF_ERROR(launch_tiles(group));
        SLUICE_RETURN_IF_ERROR(add_tile(product, tile, rows, x, n_rows, group));
      }
    SLUICE_RETURN_IF_ERROR(launch_tiles(group));
  }
  return {};
}

// Of the tiles that do not stay at this site.
uint64_t Executor::streamed_bytes(std::span<const Product> list) {
  uint64_t bytes = 0;
  for (const Product& product : list)
    for (const Tile& tile : plan_.movement.weights.of(product.weights)) {
      const Rows rows = tile.within(product.rows);
      if (rows.begin != rows.end && at().weights->resident(tile) == nullptr)
        bytes += plan_.movement.weights.blocks[tile.block].slot_bytes;
    }
  return bytes;
}

// Whether a tile may be launched together with those of the group, all of which stay or all stream. On an accelerator
// some tiles times few tokens take little longer than one. Those that stream keep their room until all are done, so
// they have no more than a quarter of it; and none is waited for whose room others of the group hold.
bool Executor::joins(const TileGroup& group, const Tile& tile) {
  if (group.n == 0) return true;
  if (site_ == host_site || batch_->prompt || group.n == TileGroup::most) return false;
  const bool stays = at().weights->resident(tile) != nullptr;
  if (stays != (at().weights->resident(*group.tiles.front()) != nullptr)) return false;
  if (stays) return true;
  const uint64_t room = plan_.movement.sites[site_].staging_bytes / 4;
  return at().weights->at_hand(tile) && (group.n + 1) * plan_.movement.weights.max_tile_bytes <= room;
}

Status Executor::add_tile(const Product& product, const Tile& tile, Rows rows, const float* x, uint32_t n_rows,
                          TileGroup& group) {
  const TensorSpec& t = g_.tensor(product.weights);
  // Logits are of few tokens, in prompts too.
  const bool prompt = batch_->prompt && !std::holds_alternative<HeadOp>(g_.ops[op_]);
  const ActFormat format = at().device->act_format(t.dtype, plan_.numerics.compute, prompt);
  const std::byte* acts = activations(x, format, n_rows, t.cols);
  SLUICE_ASSIGN_OR_RETURN(const std::byte* data, at().weights->use(tile, queue()));
  const float* bias = product.bias.valid() ? vector(product.bias) + rows.begin : nullptr;
  group.tiles[group.n] = &tile;
  group.calls[group.n++] = {data + (rows.begin - tile.row_begin) * t.row_size(),
                            t.dtype,
                            rows.end - rows.begin,
                            t.cols,
                            acts,
                            format,
                            n_rows,
                            product.out + rows.begin,
                            product.out_stride,
                            bias,
                            product.accumulate,
                            prompt};
  return {};
}

Status Executor::launch_tiles(TileGroup& group) {
  if (group.n == 0) return {};
  for (uint32_t i = 0; i < group.n; ++i) launch(group.calls[i]);
  at().weights->used({group.tiles.data(), group.n}, queue());
  group.n = 0;
  return run_ahead();
}

// --- embed -----------------------------------------------------------------------------------------

Status Executor::emit(const EmbedOp& op) {
  const TensorSpec& table = g_.tensor(op.table);
  launch(GatherRowsCall{at().seen.embed_rows, table.dtype, n_tokens_, table.cols, op.scale, ws().h});
  made(residual);
  return {};
}

// Each token's row: in a tile that stays at this site, copied from one that stays with the host, or read from its
// place in the file.
Status Executor::find_embedding_rows(TensorId id) {
  const TensorSpec& table = g_.tensor(id);
  const auto tiles = plan_.movement.weights.of(id);
  requests_.clear();
  for (uint32_t t = 0; t < n_tokens_; ++t) {
    const auto row = static_cast<uint32_t>(batch_->tokens[t].token);
    const auto tile =
        std::partition_point(tiles.begin(), tiles.end(), [row](const Tile& x) { return x.row_end <= row; });
    const uint64_t within = (row - tile->row_begin) * table.row_size();
    if (const std::byte* data = at().weights->resident(*tile); data != nullptr) {
      at().written.embed_rows[t] = data + within;
      continue;
    }
    std::byte* slot = tables_.embed_slots + t * tables_.embed_slot;
    if (const std::byte* data = sites_.front().weights->resident(*tile); data != nullptr) {
      at().written.embed_rows[t] = static_cast<std::byte*>(std::memcpy(slot, data + within, table.row_size()));
      continue;
    }
    const Extent extent{table.extent.file, table.extent.offset + row * table.row_size(), table.row_size()};
    at().written.embed_rows[t] = slot + payload_offset(extent);
    requests_.push_back({IoRequest::Op::read, extent, slot});
  }
  request_events_.resize(requests_.size());
  store_.submit(requests_, request_events_);
  for (const Event& event : request_events_) queue().wait(event);
  return {};
}

// --- FFN, head -------------------------------------------------------------------------------------

// Gate, up and the activation of the rows that the current site has.
Status Executor::gated(const FfnOp& op) {
  const Placement& placement = plan_.numerics.placement(batch_->prompt);
  const Rows rows = rows_at(g_, placement, op_, op.gate, static_cast<uint8_t>(site_));
  const uint32_t width = g_.tensor(op.gate).rows;
  norm(op.norm, op.eps, ws().h, n_tokens_, ws().x);
  const std::array<Product, 2> both = {{{op.gate, rows, {}, ws().gate, width}, {op.up, rows, {}, ws().up, width}}};
  SLUICE_RETURN_IF_ERROR(products(both, ws().x, n_tokens_));
  float *gate = ws().gate + rows.begin, *up = ws().up + rows.begin;
  launch(GatedActCall{gate, up, op.activation, n_tokens_, rows.end - rows.begin, gate, width});
  at().acts_of = nullptr;
  return {};
}

// Both sites get the residual stream before either has work, for which a hand-over would wait. The host comes first: it
// can begin, while to enqueue an accelerator's part may mean to wait for room among what streams.
Status Executor::gated_at_both(const FfnOp& op, const Split& split) {
  const uint32_t home = site_, other = split.site, width = g_.tensor(op.gate).rows;
  for (const uint32_t site : {home, other}) {
    site_ = site;
    bring({residual});
  }
  for (const uint32_t site : {std::min(home, other), std::max(home, other)}) {
    site_ = site;
    SLUICE_RETURN_IF_ERROR(gated(op));
    if (site == host_site) queue().signal();  // so that it does begin
  }
  site_ = home;
  const Columns behind{&Workspace::gate, split.row, width - split.row, width};
  send({&behind, 1}, other, home);
  return {};
}

Status Executor::emit(const FfnOp& op) {
  const Split split = plan_.numerics.placement(batch_->prompt).split(op_);
  if (split.row != 0) {
    SLUICE_RETURN_IF_ERROR(gated_at_both(op, split));
  } else {
    bring({residual});
    SLUICE_RETURN_IF_ERROR(gated(op));
  }
  const bool normed = op.post_norm.valid();
  float* out = normed ? ws().x : ws().h;
  SLUICE_RETURN_IF_ERROR(product(op.down, {}, ws().gate, n_tokens_, out, g_.hidden_size, !normed));
  if (normed) add_normed(op.post_norm, op.eps);
  made(residual);
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
      launch(CopyRowsCall{ws().h, at().seen.logit_index, n_logits_, g_.hidden_size,
                          tables_.taps + i * n_logits_ * g_.hidden_size});
}

Status Executor::emit(const RouteOp& op) {
  bring({residual});
  norm(op.norm, op.eps, ws().h, n_tokens_, ws().x);
  const uint32_t n_experts = g_.tensor(op.router).rows;
  SLUICE_RETURN_IF_ERROR(product(op.router, {}, ws().x, n_tokens_, ws().router, n_experts, false));
  launch(RouteCall{ws().router, n_tokens_, n_experts, op.used, ws().expert_ids, ws().expert_weights});
  return {};
}

Status Executor::emit(const ExpertsOp& op) {
  if (experts_ == nullptr) return error(Code::unsupported, "{}: this executor was made without experts", g_.name);
  const auto& route = std::get<RouteOp>(g_.ops[op_ - 1]);
  at().acts_of = nullptr;
  SLUICE_RETURN_IF_ERROR(experts_->run({&op, op_, route.used, n_tokens_}, ws()));
  made(residual);
  tap(op_);
  return {};
}

Status Executor::emit(const HeadOp& op) {
  if (n_logits_ == 0) {
    // The tiles are passed by all the same, so that every pass reads the same blocks in the same order.
    for (const Tile& tile : plan_.movement.weights.of(op.output)) {
      SLUICE_ASSIGN_OR_RETURN([[maybe_unused]] const std::byte* data, at().weights->use(tile, queue()));
      const Tile* passed = &tile;
      at().weights->used({&passed, 1}, queue());
    }
    return {};
  }
  bring({residual});
  launch(CopyRowsCall{ws().h, at().seen.logit_index, n_logits_, g_.hidden_size, ws().x});
  norm(op.norm, op.eps, ws().x, n_logits_, ws().x);
  SLUICE_RETURN_IF_ERROR(product(op.output, {}, ws().x, n_logits_, ws().logits, g_.n_vocab, false));
  if (op.softcap > 0) launch(SoftcapCall{ws().logits, n_logits_, g_.n_vocab, op.softcap});
  give_out_logits();
  return {};
}

// To the host: what was asked of them.
void Executor::give_out_logits() {
  const float* logits = ws().logits;
  if (wants_best_)
    launch(BestLogitsCall{logits, at().seen.best, at().seen.recent, n_logits_, g_.n_vocab, tables_.best});
  if (wants_whole_ && site_ != host_site)
    launch(CopyRowsCall{logits, at().seen.counting, n_logits_, g_.n_vocab, tables_.logits});
}

}  // namespace sluice::plan
