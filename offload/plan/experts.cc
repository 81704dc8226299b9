#include "offload/plan/experts.h"

#include <algorithm>

#include "core/error.h"

namespace sluice::plan {

std::string_view to_string(ExpertAction action) {
  switch (action) {
    case ExpertAction::compute_on_host: return "compute_on_host";
    case ExpertAction::fetch: return "fetch";
    case ExpertAction::fetch_and_keep: return "fetch_and_keep";
  }
  return "unknown";
}

void CachePolicy::decide(std::span<const ExpertNeed> needs, std::span<const CachedExpert> cached, uint32_t room,
                         std::span<ExpertChoice> choices) const {
  const auto most_changes = static_cast<uint32_t>((cached.size() + room + 1) / 2);
  const auto needed_now = [&](const CachedExpert& c) {
    return std::any_of(needs.begin(), needs.end(), [&](auto& n) { return n.op == c.op && n.expert == c.expert; });
  };
  // Least recently used, not needed now, and not already given up in this decision.
  const auto victim = [&](size_t n_decided) {
    int32_t best = -1;
    for (size_t i = 0; i < cached.size(); ++i) {
      const auto taken = [&](const ExpertChoice& c) { return c.evict == static_cast<int32_t>(i); };
      if (needed_now(cached[i]) || std::any_of(choices.begin(), choices.begin() + static_cast<long>(n_decided), taken))
        continue;
      if (best < 0 || cached[i].last_use < cached[static_cast<size_t>(best)].last_use) best = static_cast<int32_t>(i);
    }
    return best;
  };
  uint32_t changes = 0;
  for (size_t i = 0; i < needs.size(); ++i) {
    choices[i] = {};
    if (deterministic_) continue;
    if (needs[i].on_accelerator) {
      choices[i].action = ExpertAction::fetch_and_keep;
    } else if (needs[i].n_rows >= fetch_rows_ && changes < most_changes) {
      const int32_t evict = room > 0 ? -1 : victim(i);
      if (room == 0 && evict < 0) continue;
      choices[i] = {ExpertAction::fetch_and_keep, evict};
      if (room > 0) --room;
      ++changes;
    }
  }
}

ExpertRunner::~ExpertRunner() {
  while (!cached_.empty()) evict_cached(static_cast<uint32_t>(cached_.size() - 1)).ignore();
}

BlockId ExpertRunner::block_of(uint32_t op, uint32_t expert) const {
  return opt_.weights->block(opt_.plan->movement.weights.op_experts[op][expert]);
}

// Groups the (token, slot) pairs by expert, ascending, and says where each token's parts will be.
void ExpertRunner::group_rows(const Call& call, const Workspace& ws) {
  const uint32_t n_experts = opt_.graph->tensor(call.op->gate).experts;
  groups_.clear();
  uint32_t row = 0;
  for (uint32_t e = 0; e < n_experts; ++e) {
    Group group{e, row, 0};
    for (uint32_t i = 0; i < call.n_tokens * call.used; ++i) {
      if (static_cast<uint32_t>(ws.expert_ids[i]) != e) continue;
      ws.expert_rows[row] = i / call.used;
      ws.parts[i] = ws.expert_out + uint64_t{row} * opt_.graph->hidden_size;
      ++row;
    }
    group.n_rows = row - group.first_row;
    if (group.n_rows > 0) groups_.push_back(group);
  }
}

Status ExpertRunner::decide(const Call& call) {
  ++now_;
  needs_.clear();
  for (const Group& g : groups_) {
    const BlockId block = block_of(call.index, g.expert);
    const auto cached = [&](const CachedExpert& c) { return c.op == call.index && c.expert == g.expert; };
    needs_.push_back({call.index, g.expert, g.n_rows, std::any_of(cached_.begin(), cached_.end(), cached),
                      opt_.tiers->state(block, opt_.host->memory_tier()) != tier::CopyState::absent});
  }
  choices_.assign(needs_.size(), {});
  if (!replay_.empty()) {
    for (size_t i = 0; i < needs_.size(); ++i) {
      if (replay_.empty() || replay_.front().op != call.index || replay_.front().expert != needs_[i].expert)
        return error(Code::invalid_argument, "the replayed decisions do not fit: expert {} of op {} was needed",
                     needs_[i].expert, call.index);
      choices_[i] = replay_.front().choice;
      replay_.pop_front();
    }
  } else if (opt_.accelerator != nullptr) {
    const auto room = opt_.accelerator_experts - static_cast<uint32_t>(cached_.size());
    opt_.policy->decide(needs_, cached_, room, choices_);
  }
  for (size_t i = 0; i < needs_.size(); ++i) log_.push_back({call.index, needs_[i].expert, choices_[i]});
  return {};
}

Status ExpertRunner::evict_cached(uint32_t index) {
  const CachedExpert gone = cached_[index];
  cached_.erase(cached_.begin() + index);
  return opt_.tiers->evict(block_of(gone.op, gone.expert), opt_.accelerator->memory_tier());
}

// A pinned copy in a tier, fetched if it is not there, waiting for memory that is about to become free.
Result<tier::Pin> ExpertRunner::obtain(BlockId block, TierId tier) {
  for (;;) {
    const Status status = opt_.tiers->fetch(block, tier);
    if (status.ok()) return opt_.tiers->pin(block, tier);
    if (status.code() != Code::over_budget) return status;
    const Event next = opt_.tiers->pending(tier);
    if (next == Event() && !opt_.tiers->poll()) return status.with_context("routed expert");
    next.wait().ignore();
    opt_.tiers->poll();
  }
}

Status ExpertRunner::compute(const Call& call, const Group& group, const ExpertChoice& choice, const Event& rows_ready,
                             const Workspace& ws) {
  const Graph& g = *opt_.graph;
  const bool on_host = choice.action == ExpertAction::compute_on_host;
  Device& device = on_host ? *opt_.host : *opt_.accelerator;
  const BlockId block = block_of(call.index, group.expert);
  const bool was_there = opt_.tiers->state(block, device.memory_tier()) != tier::CopyState::absent;
  SLUICE_ASSIGN_OR_RETURN(tier::Pin pin, obtain(block, device.memory_tier()));

  Queue& queue = device.queue();
  queue.wait(rows_ready);
  queue.wait(pin.ready());
  const TensorSpec &gate = g.tensor(call.op->gate), &up = g.tensor(call.op->up), &down = g.tensor(call.op->down);
  const uint64_t row = group.first_row;
  std::byte* acts_at = ws.acts + row * (std::max(g.hidden_size, gate.rows) * 4ull + 256);
  const auto product = [&](const TensorSpec& t, size_t part, const float* x, float* out) {
    const ActFormat format = device.act_format(t.dtype, opt_.plan->numerics.compute, false);
    const std::byte* acts = reinterpret_cast<const std::byte*>(x);
    if (format != ActFormat::f32) {
      queue.launch(QuantizeCall{x, format, group.n_rows, t.cols, acts_at});
      acts = acts_at;
    }
    queue.launch(
        MatmulCall{pin.data(part), t.dtype, t.rows, t.cols, acts, format, group.n_rows, out, t.rows, nullptr, false});
  };
  const float* x = ws.expert_x + row * g.hidden_size;
  float* gated = ws.gate + row * gate.rows;
  product(gate, 0, x, gated);
  product(up, 1, x, ws.up + row * gate.rows);
  queue.launch(GatedActCall{gated, ws.up + row * gate.rows, call.op->activation, group.n_rows, gate.rows, gated});
  product(down, 2, gated, ws.expert_out + row * g.hidden_size);

  const Event done = queue.signal();
  parts_done_.push_back(done);
  pin.release(done);
  if (choice.action == ExpertAction::fetch_and_keep) {
    const auto same = [&](CachedExpert& c) { return c.op == call.index && c.expert == group.expert; };
    const auto at = std::find_if(cached_.begin(), cached_.end(), same);
    if (at != cached_.end()) at->last_use = now_;
    else cached_.push_back({call.index, group.expert, now_});
    return {};
  }
  return was_there ? Status() : opt_.tiers->evict(block, device.memory_tier());
}

void ExpertRunner::recover() {
  if (opt_.accelerator == nullptr) return;
  if (!opt_.accelerator->queue().signal().wait().ok()) opt_.accelerator->queue().reset();
}

Status ExpertRunner::run(const Call& call, const Workspace& ws) {
  Queue& host = opt_.host->queue();
  SLUICE_RETURN_IF_ERROR(host.signal().wait());  // the decide point: the router has spoken
  group_rows(call, ws);
  SLUICE_RETURN_IF_ERROR(decide(call));

  // Victims are named by their index among what was cached at the decision.
  std::vector<int32_t> victims;
  for (const ExpertChoice& c : choices_)
    if (c.evict >= 0) victims.push_back(c.evict);
  std::sort(victims.rbegin(), victims.rend());
  for (const int32_t v : victims) {
    if (static_cast<size_t>(v) >= cached_.size())
      return error(Code::invalid_argument, "an expert to evict is not cached: {} of {}", v, cached_.size());
    SLUICE_RETURN_IF_ERROR(evict_cached(static_cast<uint32_t>(v)));
  }

  const uint32_t hidden = opt_.graph->hidden_size;
  host.launch(CopyRowsCall{ws.x, ws.expert_rows, call.n_tokens * call.used, hidden, ws.expert_x});
  const Event rows_ready = host.signal();
  parts_done_.clear();
  for (size_t i = 0; i < groups_.size(); ++i)
    SLUICE_RETURN_IF_ERROR(compute(call, groups_[i], choices_[i], rows_ready, ws));
  for (const Event& done : parts_done_) host.wait(done);
  host.launch(MergeCall{ws.parts, ws.expert_weights, call.n_tokens, call.used, hidden, true, ws.h});
  return {};
}

}  // namespace sluice::plan
