// One step: checks, tables, the walk over the graph, and what happens when it fails. The kernels of each
// op are in emit.cc.
#include "offload/plan/executor.h"

#include <algorithm>
#include <new>

#include "core/error.h"

namespace sluice::plan {

Executor::Executor(const Parts& p)
    : g_(*p.graph),
      plan_(*p.plan),
      store_(*p.store),
      weights_(*p.weights),
      kv_(*p.kv),
      device_(*p.device),
      queue_(p.device->queue()),
      experts_(p.experts),
      trace_(p.trace) {
  lay_out(g_, plan_.workspace, !plan_.movement.table_resident, p.workspace, ws_);
  sequences_.reserve(plan_.workspace.sequences);
  requests_.reserve(plan_.workspace.tokens);
  request_events_.reserve(plan_.workspace.tokens);
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

Status Executor::fill_tables(const Batch& batch) {
  n_tokens_ = static_cast<uint32_t>(batch.tokens.size());
  n_logits_ = 0;
  tree_ = batch.tree;
  uint32_t t = 0;
  for (uint32_t s = 0; s < sequences_.size(); ++s)
    for (uint32_t i = 0; i < sequences_[s].count; ++i, ++t) {
      const BatchToken& token = batch.tokens[t];
      ws_.positions[t] = token.position;
      ws_.slots[t] = {s, sequences_[s].before + i, token.ancestors};
      if (token.wants_logits) ws_.logit_index[n_logits_++] = t;
    }
  float* table = ws_.rope_tables;
  for (const RopeSpec& rope : g_.ropes) {
    queue_.launch(RopeTableCall{ws_.positions, rope.freqs.data(), n_tokens_, rope.n_rot, rope.scale, table});
    table += uint64_t{plan_.workspace.tokens} * rope.n_rot;
  }
  return {};
}

Status Executor::run(const Batch& batch) {
  SLUICE_RETURN_IF_ERROR(fill_tables(batch));
  SLUICE_RETURN_IF_ERROR(weights_.begin_pass());
  for (op_ = 0; op_ < g_.ops.size(); ++op_) {
    if (cancelled_.load(std::memory_order_relaxed)) return error(Code::cancelled, "the step was cancelled");
    SLUICE_RETURN_IF_ERROR(emit_op(op_));
  }
  return {};
}

// Drains the queue whatever happened; a failed step is discarded.
Status Executor::finish(Status status) {
  const Status drained = queue_.signal().wait();
  if (status.ok()) status = drained;
  if (!drained.ok()) queue_.reset();
  if (!status.ok()) weights_.start_over();
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
    queue_.signal().wait().ignore();  // first, as the message takes memory too
    return error(Code::over_budget, "no memory for a step of {} tokens", batch.tokens.size());
  }
}

Result<StepResult> Executor::step(const Batch& batch) {
  SLUICE_RETURN_IF_ERROR(check(batch));
  batch_ = &batch;
  acts_of_ = nullptr;
  SLUICE_RETURN_IF_ERROR(finish(begin_and_run(batch)));
  return StepResult{ws_.logits, n_logits_, ws_.taps};
}

}  // namespace sluice::plan
