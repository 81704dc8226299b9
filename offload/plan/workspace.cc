#include "offload/plan/workspace.h"

#include <algorithm>
#include <type_traits>

namespace sluice::plan {
namespace {

class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <class T>
  void take(T*& pointer, uint64_t count) {
    pointer = base_ == nullptr || count == 0 ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ = align_up(used_ + count * sizeof(T), 64);
  }
  uint64_t here() const { return used_; }
  void go_to(uint64_t offset) { used_ = offset; }
  uint64_t used() const { return align_up(used_, io_unit); }
  void page_align() { used_ = align_up(used_, io_unit); }

 private:
  std::byte* base_;
  uint64_t used_ = 0;
};

struct Widths {
  uint64_t ffn = 0, experts = 0, used = 0, act = 0;
};

Widths widths(const Graph& g) {
  Widths w;
  for (const Op& op : g.ops) {
    if (const auto* ffn = std::get_if<FfnOp>(&op)) w.ffn = std::max<uint64_t>(w.ffn, g.tensor(ffn->gate).rows);
    if (const auto* ex = std::get_if<ExpertsOp>(&op)) w.ffn = std::max<uint64_t>(w.ffn, g.tensor(ex->gate).rows);
    if (const auto* route = std::get_if<RouteOp>(&op)) {
      w.experts = std::max<uint64_t>(w.experts, g.tensor(route->router).rows);
      w.used = std::max<uint64_t>(w.used, route->used);
    }
  }
  w.act = std::max({uint64_t{g.hidden_size}, w.ffn, uint64_t{g.n_heads} * g.head_dim});
  return w;
}

void take_token_tables(Carver& c, const Graph& g, const WorkspaceShape& shape, uint64_t tokens, uint64_t rows,
                       TokenTables& out) {
  c.take(out.positions, tokens);
  c.take(out.slots, tokens);
  c.take(out.spans, uint64_t{g.n_layers} * shape.sequences * (shape.far_pages ? 4 : 2));
  c.take(out.logit_index, rows);
  c.take(out.counting, std::max(tokens, rows));
  uint64_t freqs = 0;
  for (const RopeSpec& rope : g.ropes) freqs += rope.freqs.size();
  c.take(out.freqs, freqs);
  c.take(out.embed_rows, tokens);
}

uint64_t embed_slot_bytes(const Graph& g) {
  const auto& embed = std::get<EmbedOp>(g.ops.front());
  return align_up(g.tensor(embed.table).row_size(), io_unit) + io_unit;
}

}  // namespace

uint64_t lay_out(const Graph& g, const WorkspaceShape& shape, bool accelerator, uint32_t pages_per_sequence,
                 std::byte* base, Workspace& out) {
  const Widths w = widths(g);
  const uint64_t n = shape.tokens, q = uint64_t{g.n_heads} * g.head_dim, kv = g.kv_values();
  const uint64_t routed = n * w.used;
  Carver c(base);
  c.take(out.h, n * g.hidden_size);
  c.take(out.x, n * g.hidden_size);
  const uint64_t shared = c.here();
  c.take(out.q, n * q);
  c.take(out.k, n * kv);
  c.take(out.v, n * kv);
  c.take(out.attended, n * q);
  c.take(out.state, n * state_values(g));
  c.take(out.far_state, shape.far_pages ? n * state_values(g) : 0);
  const uint64_t attention_end = c.here();
  c.go_to(shared);
  c.take(out.gate, std::max(n, routed) * w.ffn);
  c.take(out.up, std::max(n, routed) * w.ffn);
  c.go_to(std::max(c.here(), attention_end));
  c.take(out.logits, accelerator ? uint64_t{shape.logit_rows} * g.n_vocab : 0);
  // The widest form of the host is bf16, whose rows come in whole groups; an accelerator may have bf16 beside the 8
  // bits. q8 rows carry up to three paddings of 64 bytes; f32 ones are read where they are. They do not lie over up,
  // which is of no use after the activation: GPUs make its result and them in one kernel.
  const uint64_t most = std::max(n, routed);
  const uint64_t in_groups = align_up(most, act_group) * (w.act * 2 + 256);
  c.take(out.acts, accelerator ? std::max(in_groups, most * (w.act * 13 / 4 + 256)) : in_groups);
  uint64_t rope = 0;
  for (const RopeSpec& r : g.ropes) rope += n * r.n_rot;
  c.take(out.rope_tables, rope);
  c.take(out.router, n * w.experts);
  c.take(out.expert_ids, routed);
  c.take(out.expert_weights, routed);
  c.take(out.expert_x, routed * g.hidden_size);
  c.take(out.expert_out, routed * g.hidden_size);
  c.take(out.parts, routed);
  c.take(out.expert_rows, routed);
  StepTables tables;
  if (accelerator) lay_out(g, shape, pages_per_sequence, false, nullptr, tables);
  c.take(out.mirror, tables.mirrored_bytes);
  return c.used();
}

TokenTables moved(TokenTables t, ptrdiff_t by) {
  const auto move = [by](auto*& pointer) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(reinterpret_cast<uintptr_t>(pointer) +
                                                                           static_cast<uintptr_t>(by));
  };
  move(t.positions), move(t.slots), move(t.spans), move(t.logit_index), move(t.counting), move(t.freqs);
  move(t.embed_rows), move(t.best), move(t.recent);
  return t;
}

uint64_t lay_out(const Graph& g, const WorkspaceShape& shape, uint32_t pages_per_sequence, bool embed_gather,
                 std::byte* base, StepTables& out) {
  const uint64_t n = shape.tokens, s = shape.sequences, r = shape.logit_rows;
  Carver c(base);
  const uint64_t best = best_rows(shape);
  take_token_tables(c, g, shape, few_tokens, few_tokens, out.few);
  c.take(out.few.best, best);
  c.take(out.few.recent, best * most_recent);
  c.take(out.pages, s * g.n_layers * 2 * pages_per_sequence + (shape.far_pages ? 4 * staged_pages : 0));
  out.mirrored = base;
  out.mirrored_bytes = c.here();
  take_token_tables(c, g, shape, n, r, out.all);
  out.all.best = out.few.best;
  out.all.recent = out.few.recent;
  c.take(out.logits, r * g.n_vocab);
  c.take(out.best, best * most_best);
  c.take(out.taps, shape.taps * r * g.hidden_size);
  c.page_align();
  out.embed_slot = embed_slot_bytes(g);
  c.take(out.embed_slots, embed_gather ? n * out.embed_slot : 0);
  return c.used();
}

}  // namespace sluice::plan
