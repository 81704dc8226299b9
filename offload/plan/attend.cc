// Attention of a layer: its kernels, and the pages that they wait for, wherever these lie.
#include <algorithm>

#include "core/error.h"
#include "offload/plan/executor.h"

namespace sluice::plan {

void Executor::rotate(const AttentionInOp& op, float* x, uint32_t n_heads) {
  const RopeSpec& rope = g_.ropes[op.rope];
  if (rope.n_rot == 0) return;
  make_rope_tables();
  const float* table = ws().rope_tables;
  for (uint32_t i = 0; i < op.rope; ++i) table += rope_rows() * g_.ropes[i].n_rot;
  launch(RopeCall{x, table, n_tokens_, n_heads, g_.head_dim, rope.n_rot, rope.pairs});
}

Status Executor::emit(const AttentionInOp& op) {
  const uint32_t q_size = g_.n_heads * g_.head_dim, kv_size = g_.n_kv_heads * g_.head_dim;
  bring({residual});
  norm(op.norm, op.eps, ws().h, n_tokens_, ws().x);
  const std::array<Product, 3> qkv = {{{op.wq, {0, q_size}, op.bq, ws().q, q_size},
                                       {op.wk, {0, kv_size}, op.bk, ws().k, kv_size},
                                       {op.wv, {0, kv_size}, op.bv, ws().v, kv_size}}};
  SLUICE_RETURN_IF_ERROR(products(qkv, ws().x, n_tokens_));
  head_norm(op.q_norm, op.eps, ws().q, g_.n_heads);
  head_norm(op.k_norm, op.eps, ws().k, g_.n_kv_heads);
  rotate(op, ws().q, g_.n_heads);
  rotate(op, ws().k, g_.n_kv_heads);
  for (const ValueId value : {queries, keys, values}) made(value);
  return {};
}

// Of those that the step sees, which lie with the current site.
Executor::Pages Executor::pages_here(uint32_t layer) const {
  const uint32_t home = plan_.numerics.kv_site[layer];
  const uint32_t near = home == host_site ? n_pages_ : std::min(n_pages_, plan_.numerics.near_pages);
  return site_ == home ? Pages{0, near} : Pages{near, n_pages_};
}

// A span as kernels see it, of what the sequence has of the pages.
KvSpan Executor::span(SequenceId id, uint32_t layer, Pages pages) {
  KvSpan span = kv_.span(id, layer, pages.begin, pages.empty() ? 0 : pages.end - pages.begin);
  const auto seen = [this](std::byte* const* p) {
    return reinterpret_cast<std::byte* const*>(reinterpret_cast<uintptr_t>(p) + static_cast<uintptr_t>(at().pages_by));
  };
  span.k_pages = seen(span.k_pages);
  span.v_pages = seen(span.v_pages);
  return span;
}

uint64_t Executor::spans_at(uint32_t layer, uint32_t parity) const {
  const uint64_t sets = plan_.workspace.far_pages ? 4 : 2, set = (is_far(layer) ? 2 : 0) + parity;
  return (layer * sets + set) * plan_.workspace.sequences;
}

// Pages for the new tokens, which are the last ones of their sequences and always in memory. Two sets of spans are used
// in turn: kv_append reads the first one, attention begins with the other.
Status Executor::make_spans(uint32_t layer) {
  const Pages here = pages_here(layer);
  for (uint32_t s = 0; s < sequences_.size(); ++s) {
    const StepSequence& sequence = sequences_[s];
    SLUICE_RETURN_IF_ERROR(kv_.make_room(sequence.id, layer));
    const uint32_t first = sequence.before / plan_.numerics.page_tokens;
    at().written.spans[spans_at(layer, 0) + s] = span(sequence.id, layer, {std::max(first, here.begin), here.end});
  }
  if (mirrored_) write_spans(layer, 1, here);
  return {};
}

void Executor::write_spans(uint32_t layer, uint32_t parity, Pages pages) {
  for (uint32_t s = 0; s < sequences_.size(); ++s)
    at().written.spans[spans_at(layer, parity) + s] = span(sequences_[s].id, layer, pages);
}

// Whether some new token goes to a page that lies here.
bool Executor::appends_here(uint32_t layer) const {
  const Pages here = pages_here(layer);
  return std::any_of(sequences_.begin(), sequences_.end(), [&](const StepSequence& s) {
    return std::max(s.before / plan_.numerics.page_tokens, here.begin) < std::min(kv_.n_pages(s.id), here.end);
  });
}

Status Executor::emit(const AttentionOp& op) {
  bring({queries, keys, values});
  if (site_ == host_site || !far()) SLUICE_RETURN_IF_ERROR(attend_here(op));
  else SLUICE_RETURN_IF_ERROR(batch_->prompt ? attend_to_staged(op) : attend_at_both(op));
  made(attended);
  return {};
}

// The host's part first, as of an FFN that is split.
Status Executor::attend_at_both(const AttentionOp& op) {
  const uint32_t home = site_;
  site_ = host_site;
  bring({queries, keys, values});
  SLUICE_RETURN_IF_ERROR(attend_here(op));
  queue().signal();  // so that it does begin
  site_ = home;
  SLUICE_RETURN_IF_ERROR(attend_here(op));
  const uint32_t width = state_values(g_);
  const Columns found{&Workspace::far_state, 0, width, width};
  send({&found, 1}, host_site, home);
  launch(MergeStatesCall{ws().state, ws().far_state, n_tokens_ * g_.n_heads, g_.head_dim, ws().attended});
  return {};
}

// Over the near pages, and then, group by group, over the far ones, which come here for that. Of a prompt the host
// would be long at work on its part, while few bytes are copied for many tokens.
Status Executor::attend_to_staged(const AttentionOp& op) {
  const uint32_t home = site_;
  site_ = host_site;
  const uint32_t begin = pages_here(op.layer).begin;
  const uint32_t first_far = first_token_of(begin), width = g_.n_kv_heads * g_.head_dim;
  const std::array<Columns, 2> made = {{{&Workspace::k, 0, width, width}, {&Workspace::v, 0, width, width}}};
  if (first_far < n_tokens_) hand_over(made, home, host_site, first_far);
  SLUICE_RETURN_IF_ERROR(append_here(op, first_far));
  const Event written = queue().signal();
  site_ = home;
  SLUICE_RETURN_IF_ERROR(append_here(op));
  group_done_ = {queue().signal(), Event()};  // until then kv_append uses the first set of spans
  SLUICE_RETURN_IF_ERROR(attend(op, pages_here(op.layer), 1, true, false));
  const auto end_of = [this, begin](uint32_t s) { return std::max(begin, kv_.n_pages(sequences_[s].id)); };
  uint64_t left = 0;  // groups
  for (uint32_t s = 0; s < sequences_.size(); ++s) left += div_up(end_of(s) - begin, staged_pages);
  uint32_t parity = 0;
  for (uint32_t s = 0; s < sequences_.size(); ++s)
    for (uint32_t first = begin; first < end_of(s); first += staged_pages, parity = 1 - parity) {
      const StagedGroup group{s, {first, std::min(first + staged_pages, end_of(s))}, parity, --left == 0};
      SLUICE_RETURN_IF_ERROR(attend_staged(op, group, written));
    }
  if (plan_.host().kv_group_pages != 0) settle(op.layer);
  return {};
}

// Over pages of one sequence, behind those that were attended to before.
Status Executor::attend_staged(const AttentionOp& op, const StagedGroup& group, const Event& written) {
  const SequenceId id = sequences_[group.sequence].id;
  const uint32_t first = group.pages.begin, n = group.pages.end - first, parity = group.parity;
  SLUICE_RETURN_IF_ERROR(group_done_[parity].wait());
  ready_ = {written};
  SLUICE_RETURN_IF_ERROR(kv_.bring(id, op.layer, first, n, ready_));
  Event copied;
  SLUICE_RETURN_IF_ERROR(kv_.stage(id, op.layer, first, n, parity, ready_, copied));
  for (uint32_t s = 0; s < sequences_.size(); ++s)
    at().written.spans[spans_at(op.layer, parity) + s] =
        kv_.staged_span(sequences_[s].id, first, s == group.sequence ? n : 0, parity);
  queue().wait(copied);
  launch_attention(op, parity, false, group.last);
  const Event after = group_done_[parity] = queue().signal();
  kv_.release(id, op.layer, first, n, after);
  return {};
}

// Of the step: the first one that goes to this page of its sequence, or one behind; n_tokens_ where there is none.
uint32_t Executor::first_token_of(uint32_t first_page) const {
  const uint32_t cell = first_page * plan_.numerics.page_tokens;
  uint32_t token = 0;
  for (const StepSequence& s : sequences_) {
    if (s.before + s.count > cell) return token + (cell > s.before ? cell - s.before : 0);
    token += s.count;
  }
  return token;
}

// Takes the new tokens that go to pages here, all of which are `first_token` or behind it.
Status Executor::append_here(const AttentionOp& op, uint32_t first_token) {
  if (!mirrored_) SLUICE_RETURN_IF_ERROR(make_spans(op.layer));
  const uint64_t from = uint64_t{first_token} * g_.n_kv_heads * g_.head_dim;
  if (appends_here(op.layer))
    launch(KvAppendCall{ws().k + from, ws().v + from, at().seen.slots + first_token,
                        at().seen.spans + spans_at(op.layer, 0), n_tokens_ - first_token, g_.n_kv_heads, g_.head_dim,
                        plan_.numerics.page_tokens, plan_.numerics.kv_type});
  return {};
}

// Over the pages that lie with the current site: all, or a part that is not finished.
Status Executor::attend_here(const AttentionOp& op) {
  SLUICE_RETURN_IF_ERROR(append_here(op));
  const Pages here = pages_here(op.layer);
  const uint32_t group = plan_.movement.sites[site_].kv_group_pages;
  const bool spilled = group != 0 && std::any_of(sequences_.begin(), sequences_.end(), [&](const StepSequence& s) {
                         return kv_.any_spilled(s.id, op.layer);
                       });
  group_done_ = {};
  if (spilled) group_done_[0] = queue().signal();  // until then kv_append uses the first set of spans
  const uint32_t step = spilled ? group : here.end - here.begin;
  const bool whole = here.end - here.begin == n_pages_;
  uint32_t parity = 1;
  for (uint32_t first = here.begin; first < here.end; first += step, parity = 1 - parity)
    SLUICE_RETURN_IF_ERROR(attend(op, {first, std::min(first + step, here.end)}, parity, first == here.begin,
                                  whole && first + step >= here.end));
  if (group != 0) settle(op.layer);
  return {};
}

// The layer was attended to: pages that do not stay may go.
void Executor::settle(uint32_t layer) {
  const Event after = queue().signal();
  for (const StepSequence& s : sequences_) kv_.settle(s.id, layer, after);
}

// Attention over some pages of the layer.
Status Executor::attend(const AttentionOp& op, Pages pages, uint32_t parity, bool start, bool finish) {
  const uint32_t n = pages.end - pages.begin;
  SLUICE_RETURN_IF_ERROR(group_done_[parity].wait());
  ready_.clear();
  for (const StepSequence& s : sequences_) SLUICE_RETURN_IF_ERROR(kv_.bring(s.id, op.layer, pages.begin, n, ready_));
  if (!mirrored_) write_spans(op.layer, parity, pages);
  for (const Event& event : ready_) queue().wait(event);
  launch_attention(op, parity, start, finish);
  if (start && finish) return {};
  const Event after = group_done_[parity] = queue().signal();
  for (const StepSequence& s : sequences_) kv_.release(s.id, op.layer, pages.begin, n, after);
  return {};
}

void Executor::launch_attention(const AttentionOp& op, uint32_t parity, bool start, bool finish) {
  const uint32_t most_pages = site_ == host_site ? 0 : std::min(most_pages_, plan_.numerics.near_pages);
  float* const state = is_far(op.layer) ? ws().far_state : ws().state;
  launch(AttentionCall{ws().q, at().seen.slots, at().seen.spans + spans_at(op.layer, parity), n_tokens_, g_.n_heads,
                       g_.n_kv_heads, g_.head_dim, plan_.numerics.page_tokens, plan_.numerics.kv_type, op.scale,
                       op.softcap, op.window, tree_, start, finish, state, ws().attended, batch_->prompt, most_pages});
  at().acts_of = nullptr;
}

Status Executor::emit(const AttentionOutOp& op) {
  bring({residual, attended});
  const bool normed = op.post_norm.valid();
  float* out = normed ? ws().x : ws().h;
  SLUICE_RETURN_IF_ERROR(product(op.wo, op.bo, ws().attended, n_tokens_, out, g_.hidden_size, !normed));
  if (normed) add_normed(op.post_norm, op.eps);
  made(residual);
  return {};
}

}  // namespace sluice::plan
