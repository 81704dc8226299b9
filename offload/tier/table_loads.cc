// BlockTable: how copies come to be.
#include "core/error.h"
#include "offload/tier/block_table.h"

namespace sluice::tier {

Result<BlockTable::Load> BlockTable::begin_load(BlockId id, TierId to, JobList& jobs) {
  std::lock_guard lock(mutex_);
  Entry* e = find(id);
  if (e == nullptr || !e->alive || to.value >= tiers_.size())
    return error(Code::not_found, "there is no block {} or no tier {}", id.value, to.value);
  const size_t t = to.value;
  for (size_t f = 0; f < tiers_.size(); ++f) advance(*e, f, nullptr);
  if (auto known = without_load(*e, t)) return *known;

  bool source_starting = false;
  const std::optional<size_t> source = memory_source(*e, t, source_starting);
  if (!source && !saved(*e)) {
    if (source_starting) return Load::busy;
    if (e->version == no_version) return error(Code::not_found, "block {} has no content yet", id.value);
    return error(Code::unsupported, "block {}: no connection to tier {} from where its newest copy lies", id.value,
                 tiers_[t]->space.name());
  }
  const bool staged = !source && !tiers_[t]->space.host_accessible();
  if (staged && !tiers_[0]->links[t])
    return error(Code::unsupported, "tier {} is not connected to the host's memory", tiers_[t]->space.name());
  SLUICE_RETURN_IF_ERROR(take_slots(*e, copy(*e, t), t, staged));
  fill_load(*e, t, source, jobs.add());
  return Load::started;
}

// What a fetch comes to where there is a copy; nothing if there is none, and it has to be loaded.
std::optional<Result<BlockTable::Load>> BlockTable::without_load(Entry& e, size_t t) {
  Copy& c = copy(e, t);
  const Status in_the_way = c.state == CopyState::absent
                                ? Status()
                                : error(c.pins > 0 ? Code::unavailable : Code::over_budget,
                                        "block {}: a copy in tier {} that cannot be used is not gone yet",
                                        e.block.id.value, tiers_[t]->space.name());
  if (c.state == CopyState::absent) return std::nullopt;
  if (!valid(e, c) || c.cancelling) return in_the_way;
  switch (c.state) {
    case CopyState::loading: c.leaving = false; break;
    case CopyState::ready:
    case CopyState::dirty: break;
    case CopyState::evicting: c.state = CopyState::ready; break;
    case CopyState::writing:
      if (c.starting || c.stage != Stage::waiting) return in_the_way;
      unreserve(e, c);
      c.state = CopyState::dirty;
      break;
    default: return in_the_way;
  }
  return Load::present;
}

// The best valid copy in a tier that is connected to `t`: one that is there before one that is coming.
std::optional<size_t> BlockTable::memory_source(const Entry& e, size_t t, bool& starting) const {
  std::optional<size_t> coming;
  for (size_t f = 0; f < tiers_.size(); ++f) {
    const Copy& c = copy(e, f);
    if (f == t || !tiers_[f]->links[t] || !valid(e, c) || c.cancelling) continue;
    if (c.state == CopyState::absent || c.state == CopyState::failed) continue;
    if (c.state != CopyState::loading) return f;
    if (c.starting) starting = true;
    else if (!coming) coming = f;
  }
  return coming;
}

Status BlockTable::take_slots(Entry& e, Copy& c, size_t t, bool staged) {
  SLUICE_ASSIGN_OR_RETURN(c.slot, tiers_[t]->space.allocate(e.block.slot_size()));
  if (!staged) return {};
  Result<SlotId> staging = tiers_[0]->space.allocate(e.block.slot_size());
  if (staging.ok()) {
    c.staging = *staging;
    return {};
  }
  tiers_[t]->space.free(c.slot);
  c.slot = no_slot;
  return staging.status().with_context("staging");
}

void BlockTable::fill_load(Entry& e, size_t t, std::optional<size_t> source, Job& job) {
  Copy& c = copy(e, t);
  c.state = CopyState::loading;
  c.starting = true;
  c.version = e.version;
  e.load_failure.reset();
  list(e, t);
  ++transfers_.started;

  job.kind = Job::Kind::load;
  job.block = &e.block;
  job.tier = TierId{static_cast<uint16_t>(t)};
  job.slot = tiers_[t]->space.address(c.slot);
  if (c.staging != no_slot) job.staging = tiers_[0]->space.address(c.staging);
  if (source) {
    Copy& s = copy(e, *source);
    ++s.uses;
    job.source = Job::Source::memory;
    job.from = TierId{static_cast<uint16_t>(*source)};
    job.from_slot = tiers_[*source]->space.address(s.slot);
    job.source_ready = s.ready;
    job.after = s.releases;
    return;
  }
  c.direct = c.staging == no_slot;
  c.from_spill = spilled(e);
  if (c.from_spill) {
    ++e.spill_uses;
    job.source = Job::Source::spill;
    job.spill = {spill_file_, spill_->offset(e.spill), e.block.home.empty() ? e.block.bytes : e.block.slot_size()};
    job.sum = e.spill_sum;
  } else {
    job.source = Job::Source::home;
    if (e.parts != nullptr) job.parts = {&e.parts[t * e.block.home.size()], e.block.home.size()};
  }
}

void BlockTable::wait_started(BlockId id) {
  std::unique_lock lock(mutex_);
  const Entry* e = find(id);
  if (e == nullptr) return;
  for (size_t t = 0; t < tiers_.size(); ++t) wait_until_started(lock, copy(*e, t));
}

void BlockTable::started(std::span<const Job> jobs) {
  std::unique_lock lock(mutex_);
  for (const Job& job : jobs) {
    Entry& e = entries_[job.block->id.value];
    Copy& c = copy(e, job.tier.value);
    if (job.kind == Job::Kind::load && job.source == Job::Source::memory) {
      Copy& source = copy(e, job.from.value);
      hold_until(lock, source, job.done);
      --source.uses;
      advance(e, job.from.value, nullptr);
    }
    if (job.kind == Job::Kind::write) e.spill_sum = job.sum;
    c.io = job.io;
    c.ready = job.done;
    c.starting = false;
  }
  lock.unlock();
  started_.notify_all();
}

void BlockTable::cancel(BlockId id, TierId tier, CancelList& cancel) {
  std::unique_lock lock(mutex_);
  Entry* e = find(id);
  if (e == nullptr || tier.value >= tiers_.size()) return;
  wait_until_started(lock, copy(*e, tier.value));
  add_cancel(*e, tier.value, cancel);
}

// A load from files that nobody uses yet. Others have work enqueued behind them, which would fail too.
void BlockTable::add_cancel(const Entry& e, size_t t, CancelList& cancel) const {
  const Copy& c = copy(e, t);
  if (c.state != CopyState::loading || c.starting || !c.direct || c.changed || c.ready.done()) return;
  if (c.pins > 0 || c.uses > 0 || !c.releases.empty()) return;
  const_cast<Copy&>(c).cancelling = true;
  if (e.parts == nullptr || c.from_spill) {
    cancel.push_back(c.io);
    return;
  }
  const size_t n = e.block.home.size();
  for (size_t i = 0; i < n; ++i) cancel.push_back(e.parts[t * n + i]);
}

void BlockTable::settle_load(Entry& e, size_t t) {
  Copy& c = copy(e, t);
  if (!c.ready.done() || !c.io.done()) return;
  const Status status = c.ready.status();
  c.ready = c.io = Event();
  free_staging(c);
  if (c.from_spill) --e.spill_uses;
  c.from_spill = c.direct = c.cancelling = false;
  count_end(status);
  load_ended(e, t, status);
  free_stale_spill(e);
}

void BlockTable::load_ended(Entry& e, size_t t, const Status& status) {
  Copy& c = copy(e, t);
  const bool leaving = std::exchange(c.leaving, false);
  const bool changed = std::exchange(c.changed, false);
  if (changed) --e.unsettled;
  if (!status.ok()) {
    c.state = CopyState::failed;
    if (changed) fall_back(e, c);
    if (status.code() != Code::cancelled) e.load_failure = std::make_unique<Status>(status);
    return;
  }
  tiers_[t]->bytes_in += e.block.bytes;
  c.state = changed ? CopyState::dirty : CopyState::ready;
  if (changed) drop_older(e);
  if (!leaving || c.pins > 0 || !valid(e, c)) return;
  if (Status refused = begin_eviction(e, t); !refused.ok()) e.write_failure = std::make_unique<Status>(refused);
}

// The change made to a copy whose load has failed never was: the version that was being loaded is the
// newest again, also for a change that was made to a copy of the changed copy.
void BlockTable::fall_back(Entry& e, const Copy& c) {
  for (size_t o = 0; o < tiers_.size(); ++o) {
    Copy& other = copy(e, o);
    if (other.changed && other.base == c.version) other.base = c.base;
  }
  if (e.version == c.version) e.version = c.base;
}

void BlockTable::count_end(const Status& status) {
  ++(status.ok() ? transfers_.done : status.code() == Code::cancelled ? transfers_.cancelled : transfers_.failed);
}

}  // namespace sluice::tier
