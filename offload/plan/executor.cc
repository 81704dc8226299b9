// One step: checks, tables, the walk over the graph, and what happens when it fails. The kernels of each
// op are in emit.cc and attend.cc.
#include "offload/plan/executor.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <new>
#include <thread>
#include <utility>

#include "core/error.h"
#include "offload/plan/span.h"

namespace sluice::plan {

namespace {

// Each with its layer: "embed", "attention_in 0", …, "head".
std::vector<std::string> names_of_ops(const Graph& g) {
  std::vector<std::string> names;
  std::string layer;
  for (const Op& op : g.ops) {
    if (const auto* in = std::get_if<AttentionInOp>(&op)) layer = fmt::format(" {}", in->layer);
    if (std::holds_alternative<HeadOp>(op)) layer.clear();
    names.push_back(std::string(name(op)) + layer);
  }
  return names;
}

}  // namespace

Executor::Executor(const Parts& p)
    : g_(*p.graph),
      plan_(*p.plan),
      store_(*p.store),
      kv_(*p.kv),
      experts_(p.experts),
      trace_(p.trace),
      ranges_(p.ranges),
      op_names_(names_of_ops(g_)) {
  lay_out_tables(g_, plan_, p.tables, tables_);
  for (const SiteParts& part : p.sites) {
    Site site;
    site.device = part.device;
    site.weights = part.weights;
    site.copies = part.copies;
    for (const bool large : {false, true})
      if (part.workspace != nullptr)
        lay_out(g_, plan_.workspace_of(large), part.device->memory_tier() != host_tier,
                plan_.movement.pages_per_sequence, part.workspace, site.layouts[large]);
    sites_.push_back(site);
  }
  for (Workspace& layout : sites_.front().layouts) layout.logits = tables_.logits;
  const uint32_t q = g_.n_heads * g_.head_dim, kv = g_.n_kv_heads * g_.head_dim;
  values_ = {{{&Workspace::h, g_.hidden_size},
              {&Workspace::q, q},
              {&Workspace::k, kv},
              {&Workspace::v, kv},
              {&Workspace::attended, q}}};
  fill_constants(tables_.all, std::max(plan_.workspace.tokens, plan_.workspace.logit_rows));
  fill_constants(tables_.few, few_tokens);
  sequences_.reserve(plan_.workspace.sequences);
  requests_.reserve(plan_.workspace.tokens);
  request_events_.reserve(plan_.workspace.tokens);
}

void Executor::fill_constants(const TokenTables& tables, uint32_t count) const {
  for (uint32_t i = 0; i < count; ++i) tables.counting[i] = i;
  float* freqs = tables.freqs;
  for (const RopeSpec& rope : g_.ropes) freqs = std::copy(rope.freqs.begin(), rope.freqs.end(), freqs);
}

Status Executor::check(const Batch& batch) const {
  const WorkspaceShape& most = plan_.workspace;
  if (batch.tokens.empty()) return error(Code::invalid_argument, "a batch without tokens");
  if (batch.tokens.size() > most.tokens)
    return error(Code::invalid_argument, "a batch of {} tokens, planned were at most {}", batch.tokens.size(),
                 most.tokens);
  const auto rows = std::count_if(batch.tokens.begin(), batch.tokens.end(), [](auto& t) { return t.wants_logits; });
  if (rows > most.logit_rows)
    return error(Code::invalid_argument, "a batch that wants {} rows of logits, planned were at most {}", rows,
                 most.logit_rows);
  SLUICE_RETURN_IF_ERROR(check_best(batch, static_cast<size_t>(rows)));
  if (batch.tap_layers.size() > most.taps)
    return error(Code::invalid_argument, "a batch with {} taps, planned were {}", batch.tap_layers.size(), most.taps);
  for (const uint32_t layer : batch.tap_layers)
    if (layer >= g_.n_layers)
      return error(Code::invalid_argument, "a tap after layer {} of {} layers", layer, g_.n_layers);
  for (const BatchToken& t : batch.tokens)
    if (t.token < 0 || static_cast<uint32_t>(t.token) >= g_.n_vocab)
      return error(Code::invalid_argument, "token {} is not one of the {} of {}", t.token, g_.n_vocab, g_.name);
  return {};
}

Status Executor::check_best(const Batch& batch, size_t n_rows) const {
  const auto is_token = [this](int32_t id) { return id >= 0 && static_cast<uint32_t>(id) < g_.n_vocab; };
  for (const BatchToken& t : batch.tokens) {
    const BestTokens& best = t.best;
    if (!t.wants_logits || best.k == 0) continue;
    if (n_rows > best_rows(plan_.workspace))
      return error(Code::invalid_argument, "a batch of {} rows, some with their best tokens: at most {}", n_rows,
                   best_rows(plan_.workspace));
    if (best.k > most_best || best.recent.size() > most_recent)
      return error(Code::invalid_argument, "the {} best tokens with {} recent ones: at most {} and {}", best.k,
                   best.recent.size(), most_best, most_recent);
    if (!(best.penalty > 0) || !std::isfinite(best.penalty) ||
        !std::all_of(best.recent.begin(), best.recent.end(), is_token))
      return error(Code::invalid_argument, "a penalty of {}, or of tokens that are none of the {} of {}", best.penalty,
                   g_.n_vocab, g_.name);
  }
  return {};
}

// The sequences of the batch, each announced to the KV store.
Status Executor::begin(const Batch& batch) {
  sequences_.clear();
  for (const BatchToken& t : batch.tokens) {
    if (!sequences_.empty() && sequences_.back().id == t.sequence) {
      ++sequences_.back().count;
      continue;
    }
    for (const StepSequence& s : sequences_)
      if (s.id == t.sequence)
        return error(Code::invalid_argument, "the tokens of sequence {} do not stand together", t.sequence.value);
    if (sequences_.size() == plan_.workspace.sequences)
      return error(Code::invalid_argument, "a batch of more than the {} planned sequences", plan_.workspace.sequences);
    SLUICE_ASSIGN_OR_RETURN(const uint32_t before, kv_.length(t.sequence));
    sequences_.push_back({t.sequence, before, 1});
  }
  for (const StepSequence& s : sequences_) {
    if (batch.tree && s.count > 64)
      return error(Code::invalid_argument, "a tree of {} tokens: at most 64 of one sequence", s.count);
    SLUICE_RETURN_IF_ERROR(kv_.begin_step(s.id, s.count));
  }
  return {};
}

void Executor::fill_tables(const Batch& batch) {
  n_tokens_ = static_cast<uint32_t>(batch.tokens.size());
  n_logits_ = 0;
  wants_best_ = wants_whole_ = false;
  tree_ = batch.tree;
  uint32_t t = 0;
  for (uint32_t s = 0; s < sequences_.size(); ++s)
    for (uint32_t i = 0; i < sequences_[s].count; ++i, ++t) {
      const BatchToken& token = batch.tokens[t];
      for_tables([&](const TokenTables& tables) {
        tables.positions[t] = token.position;
        tables.slots[t] = {s, sequences_[s].before + i, token.ancestors};
      });
      if (token.wants_logits) fill_row(token, t);
    }
  for (Site& site : sites_) site.acts_of = nullptr, site.rope_made = false;
  for (Value& value : values_) value.present = 0;
}

// The next row of logits: that of the index-th token.
void Executor::fill_row(const BatchToken& token, uint32_t index) {
  const uint32_t row = n_logits_++;
  for_tables([&](const TokenTables& tables) { tables.logit_index[row] = index; });
  const BestTokens best = token.best.k > 0 ? token.best : BestTokens{};
  (best.k > 0 ? wants_best_ : wants_whole_) = true;
  if (row >= best_rows(plan_.workspace)) return;  // then all are wanted whole
  tables_.few.best[row] = {best.k, static_cast<uint32_t>(best.recent.size()), best.penalty};
  std::copy(best.recent.begin(), best.recent.end(), tables_.few.recent + uint64_t{row} * most_recent);
}

// Cosines and sines, at each site that rotates, once.
void Executor::make_rope_tables() {
  if (std::exchange(at().rope_made, true)) return;
  float* table = ws().rope_tables;
  const float* freqs = at().seen.freqs;
  for (const RopeSpec& rope : g_.ropes) {
    launch(RopeTableCall{at().seen.positions, freqs, n_tokens_, rope.n_rot, rope.scale, table});
    table += rope_rows() * rope.n_rot;
    freqs += rope.freqs.size();
  }
}

// Kernels of recorded steps would look for weights where they were before they were lent.
Status Executor::begin_passes(const Batch& batch) {
  large_ = plan_.movement.is_large(static_cast<uint32_t>(batch.tokens.size()));
  for (Site& site : sites_) {
    site.ws = site.layouts[large_];
    SLUICE_RETURN_IF_ERROR(site.weights->begin_pass(batch.prompt, large_));
    if (site.weights->takes_back()) site.queue().forget_recordings();
  }
  return {};
}

Status Executor::run(const Batch& batch) {
  SLUICE_RETURN_IF_ERROR(begin_passes(batch));
  choose_tables();
  fill_tables(batch);
  const Placement& placement = plan_.numerics.placement(batch.prompt);
  SLUICE_RETURN_IF_ERROR(make_tables(placement));
  if (recorded_) return replay(placement);
  for (uint8_t site = 1; site < sites_.size(); ++site)
    if (mirrored_ && placement.computes(site)) copy_tables(sites_[site]);
  return walk(placement);
}

Status Executor::replay(const Placement& placement) {
  SLUICE_RETURN_IF_ERROR(check_cancelled());
  site_ = placement.op_site.front();
  const uint64_t key = recording_key();
  if (!queue().has_recording(key)) {
    queue().record(key);
    copy_tables(at());
    SLUICE_RETURN_IF_ERROR(walk(placement));
  }
  queue().replay(key);
  return {};
}

// --- tables ----------------------------------------------------------------------------------------

// A kernel that looks something up in the host's memory waits for it some microseconds, or ten while weights come over
// the same link, and some look up one thing after another. So accelerators get copies of the tables of few tokens; but
// where KV comes and goes, the tables of its pages change during the step.
bool Executor::can_mirror() const {
  const std::vector<Holding>& held = plan_.movement.sites;
  const bool stays = std::all_of(held.begin(), held.end(), [](const Holding& h) { return h.kv_group_pages == 0; });
  return sites_.size() > 1 && !batch_->prompt && batch_->tokens.size() <= few_tokens && stays;
}

// A step that decodes wholly at one accelerator, where everything stays, is the same work every time.
bool Executor::recordable() const {
  const auto wants = [](const BatchToken& t) { return t.wants_logits; };
  if (std::none_of(batch_->tokens.begin(), batch_->tokens.end(), wants)) return false;
  if (!batch_->tap_layers.empty() || experts_ != nullptr) return false;
  const Placement& decode = plan_.numerics.decode;
  const uint8_t site = decode.op_site.front();
  const WeightStream& weights = *sites_[site].weights;
  return decode.is_all_at(site) && !far() && sites_[site].queue().can_record() && !weights.streams(false) &&
         !weights.awaits();
}

// One recording serves lengths up to a fourth or so apart.
uint32_t Executor::recorded_pages() const {
  uint32_t pages = 8;
  while (pages < n_pages_) pages += std::max(2u, std::bit_floor(pages) / 4);
  return std::min(pages, plan_.numerics.near_pages);
}

// What calls depend on but for what tables hold.
uint64_t Executor::recording_key() const {
  const uint64_t flags = uint64_t{wants_whole_} << 2 | uint64_t{wants_best_} << 1 | uint64_t{tree_};
  return uint64_t{most_pages_} << 40 | uint64_t{n_tokens_} << 24 | uint64_t{n_logits_} << 8 | flags;
}

// Where tables are written and where kernels find them.
void Executor::choose_tables() {
  n_pages_ = 0;
  for (const StepSequence& s : sequences_) n_pages_ = std::max(n_pages_, kv_.n_pages(s.id));
  mirrored_ = can_mirror();
  recorded_ = mirrored_ && recordable();
  most_pages_ = recorded_ ? recorded_pages() : mirrored_ ? n_pages_ : 0;
  for (Site& site : sites_) {
    const bool mirrors = mirrored_ && site.ws.mirror != nullptr;
    site.pages_by = mirrors ? site.ws.mirror - tables_.mirrored : 0;
    site.written = mirrors ? tables_.few : tables_.all;
    site.seen = moved(site.written, site.pages_by);
  }
}

// What can be written before kernels run: which rows of the embedding table, and of a step that is mirrored the pages
// of all layers.
Status Executor::make_tables(const Placement& placement) {
  site_ = placement.op_site.front();
  SLUICE_RETURN_IF_ERROR(find_embedding_rows(std::get<EmbedOp>(g_.ops.front()).table));
  if (!mirrored_) return {};
  for (size_t i = 0; i < g_.ops.size(); ++i) {
    site_ = placement.op_site[i];
    const auto* attention = std::get_if<AttentionOp>(&g_.ops[i]);
    if (attention == nullptr) continue;
    SLUICE_RETURN_IF_ERROR(make_spans(attention->layer));
    if (site_ == host_site || !far()) continue;
    site_ = host_site;
    SLUICE_RETURN_IF_ERROR(make_spans(attention->layer));
  }
  return {};
}

void Executor::copy_tables(Site& site) {
  site.queue().launch(CopyRowsCall{reinterpret_cast<const float*>(tables_.mirrored), tables_.all.counting, 1,
                                   static_cast<uint32_t>(tables_.mirrored_bytes / sizeof(float)),
                                   reinterpret_cast<float*>(site.ws.mirror)});
}

Status Executor::check_cancelled() const {
  return cancelled_.load(std::memory_order_relaxed) ? error(Code::cancelled, "the step was cancelled") : Status();
}

Status Executor::walk(const Placement& placement) {
  for (op_ = 0; op_ < g_.ops.size(); ++op_) {
    SLUICE_RETURN_IF_ERROR(check_cancelled());
    site_ = placement.op_site[op_];
    SLUICE_RETURN_IF_ERROR(emit_op(op_));
  }
  return {};
}

// --- values ----------------------------------------------------------------------------------------

// To the current site. What comes from the same place is waited for once.
void Executor::bring(std::initializer_list<ValueId> ids) {
  for (uint32_t from = 0; from < sites_.size(); ++from) {
    std::array<Columns, n_values> list;
    size_t n = 0;
    for (const ValueId id : ids) {
      Value& value = values_[id];
      const bool here = (value.present & 1u << site_) != 0;
      if (here || static_cast<uint32_t>(std::countr_zero(value.present)) != from) continue;
      list[n++] = {value.at, 0, value.width, value.width};
      value.present |= 1u << site_;
    }
    send({list.data(), n}, from, site_);
  }
}

// To the same columns there.
void Executor::send(std::span<const Columns> list, uint32_t from, uint32_t to) {
  if (list.empty()) return;
  if (from == host_site || to == host_site) return hand_over(list, from, to);
  hand_over(list, from, host_site);
  hand_over(list, host_site, to);
}

// One of the two is the host, whose workspace the other one reaches. Whoever wrote over the place of what is handed
// over, be it with another value that lies there, would have to come after an op that reads it: ops follow one another,
// and of a split op one site waits for the other, so no more than this order is needed.
void Executor::hand_over(std::span<const Columns> list, uint32_t from, uint32_t to, uint32_t first_token) {
  Site &source = sites_[from], &target = sites_[to];
  Site& accelerator = from == host_site ? target : source;
  const auto row = [&](const Workspace& ws, const Columns& c) {
    return ws.*c.at + uint64_t{first_token} * c.stride + c.first;
  };
  if (from == host_site) target.queue().wait(source.queue().signal());
  for (const Columns& c : list)
    accelerator.queue().launch(CopyRowsCall{row(source.ws, c), accelerator.seen.counting, n_tokens_ - first_token,
                                            c.count, row(target.ws, c), c.stride});
  if (to == host_site) target.queue().wait(source.queue().signal());
  target.acts_of = nullptr;
}

// --- the end ---------------------------------------------------------------------------------------

// A recorded step takes a few milliseconds of which the host has nothing to do: to be woken up would cost a part of
// one.
void Executor::stay_awake(const Event& end) const {
  constexpr uint64_t most_ns = 20'000'000;
  const uint64_t start = now_ns();
  while (!end.done() && now_ns() - start < most_ns) std::this_thread::yield();
}

// All queues come to rest, and those that failed are made ready for the next step.
Status Executor::drain(Status status) {
  std::array<Event, 32> ends;
  for (size_t i = 0; i < sites_.size(); ++i) ends[i] = sites_[i].queue().signal();
  if (recorded_) stay_awake(ends[site_]);
  for (size_t i = 0; i < sites_.size(); ++i) {
    const Status drained = ends[i].wait();
    if (status.ok()) status = drained;
  }
  if (!status.ok())
    for (Site& site : sites_) site.queue().reset();
  return status;
}

// Nothing is on its way any more, and queues of copies that failed work again.
void Executor::start_over() {
  for (Site& site : sites_) {
    site.weights->start_over();
    if (site.copies != nullptr && !site.copies->signal().wait().ok()) site.copies->reset();
  }
}

// Drains the queues whatever happened; a failed step is discarded.
Status Executor::finish(Status status) {
  status = drain(std::move(status));
  if (!status.ok()) start_over();
  if (!status.ok() && experts_ != nullptr) experts_->recover();
  for (const StepSequence& s : sequences_) kv_.end_step(s.id, status.ok());
  if (status.code() == Code::cancelled) cancelled_.store(false, std::memory_order_relaxed);
  return status;
}

// Whatever happens here, what was enqueued still runs on memory that must not go: no exception may pass
// before finish() has drained the queue.
Status Executor::begin_and_run(const Batch& batch) {
  try {
    SLUICE_RETURN_IF_ERROR(begin(batch));
    return run(batch);
  } catch (const std::bad_alloc&) {
    for (Site& site : sites_) site.queue().signal().wait().ignore();  // first, as the message takes memory too
    return error(Code::over_budget, "no memory for a step of {} tokens", batch.tokens.size());
  }
}

Result<StepResult> Executor::step(const Batch& batch) {
  SLUICE_RETURN_IF_ERROR(check(batch));
  const char* const kind = batch.prompt ? "prompt" : "decode";
  const Span span(trace_, ranges_, {"step", kind, kind});
  batch_ = &batch;
  SLUICE_RETURN_IF_ERROR(finish(begin_and_run(batch)));
  return StepResult{tables_.logits, tables_.best, n_logits_, tables_.taps};
}

}  // namespace sluice::plan
