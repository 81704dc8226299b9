// BlockTable: how copies go.
#include "core/error.h"
#include "offload/tier/block_table.h"

namespace sluice::tier {

Status BlockTable::evict(BlockId id, TierId tier, JobList& jobs, CancelList& cancel, bool& spill_wanted) {
  std::unique_lock lock(mutex_);
  const bool can_make_spill = std::exchange(spill_wanted, false);
  Entry* e = find(id);
  if (e == nullptr || tier.value >= tiers_.size()) return {};
  const size_t t = tier.value;
  Copy& c = copy(*e, t);
  wait_until_started(lock, c);
  advance(*e, t, nullptr);
  if (c.pins > 0)
    return error(Code::invalid_argument, "block {} cannot leave tier {}: it is pinned", id.value,
                 tiers_[t]->space.name());
  const bool keeper = c.state == CopyState::dirty || (c.state == CopyState::loading && c.changed);
  spill_wanted = keeper && can_make_spill && !spill_ && valid(*e, c) && !heir(*e, t, false);
  if (spill_wanted) return {};
  if (c.state == CopyState::loading) {
    c.leaving = true;
    add_cancel(*e, t, cancel);
    return {};
  }
  if ((c.state != CopyState::ready && c.state != CopyState::dirty) || !valid(*e, c)) return {};
  if (c.state == CopyState::dirty && e->write_failure != nullptr) {
    const std::unique_ptr<Status> told = std::move(e->write_failure);
    return told->with_context("writing a block to the spill file");
  }
  const Status status = begin_eviction(*e, t);
  advance(*e, t, &jobs);
  return status;
}

void BlockTable::settle(JobList& jobs) {
  if (n_listed_.load(std::memory_order_relaxed) == 0) return;
  std::lock_guard lock(mutex_);
  for (size_t t = 0; t < tiers_.size(); ++t)
    for (uint32_t b = tiers_[t]->head; b != none;) {
      if (jobs.full()) return;
      const uint32_t next = tiers_[t]->copies[b].next;  // advance() takes no other block off the list
      advance(entries_[b], t, &jobs);
      b = next;
    }
}

// Takes a copy as far as it can go now. Jobs are added only if there is a list with room for them.
void BlockTable::advance(Entry& e, size_t t, JobList* jobs) {
  Copy& c = copy(e, t);
  if (c.starting || c.state == CopyState::absent) return;
  c.releases.prune();
  if (c.state == CopyState::loading) settle_load(e, t);
  if (c.state == CopyState::writing) advance_write(e, t, jobs);
  if (free_now(e, c)) {
    free_copy(e, t);
    recycle(e);
  } else if (under_way(e, c)) {
    list(e, t);
  } else {
    unlist(e, t);
  }
}

bool BlockTable::free_now(const Entry& e, const Copy& c) const {
  if (c.starting || c.pins > 0 || c.uses > 0 || !c.releases.empty()) return false;
  switch (c.state) {
    case CopyState::evicting:
    case CopyState::failed: return true;
    case CopyState::ready:
    case CopyState::dirty: return !valid(e, c) && !(e.alive && e.unsettled > 0);
    default: return false;
  }
}

bool BlockTable::under_way(const Entry& e, const Copy& c) const {
  const bool settled = c.state == CopyState::ready || c.state == CopyState::dirty;
  return !settled || !valid(e, c) || !c.releases.empty();
}

void BlockTable::free_copy(Entry& e, size_t t) {
  Copy& c = copy(e, t);
  unlist(e, t);
  free_staging(c);
  tiers_[t]->space.free(c.slot);
  c = Copy();
  freed_ = true;
}

void BlockTable::free_staging(Copy& c) {
  if (c.staging == no_slot) return;
  tiers_[0]->space.free(c.staging);
  c.staging = no_slot;
  freed_ = true;
}

void BlockTable::free_stale_spill(Entry& e) {
  if (e.spill == RangeAllocator::none || e.spill_uses > 0 || e.reserved > 0) return;
  if (e.alive && (spilled(e) || e.unsettled > 0)) return;
  spill_->free(e.spill);
  e.spill = RangeAllocator::none;
  e.spill_version = no_version;
}

// Another tier with a valid copy, there (loading: on its way), that can keep the newest version.
std::optional<size_t> BlockTable::heir(const Entry& e, size_t t, bool loading) const {
  for (size_t o = 0; o < tiers_.size(); ++o) {
    const Copy& c = copy(e, o);
    if (o == t || !valid(e, c)) continue;
    if (!loading && c.state == CopyState::ready) return o;
    if (loading && c.state == CopyState::loading && !c.leaving && !c.cancelling) return o;
  }
  return std::nullopt;
}

// For a valid copy in state ready or dirty that is not pinned.
Status BlockTable::begin_eviction(Entry& e, size_t t) {
  Copy& c = copy(e, t);
  if (c.state == CopyState::ready) {
    c.state = CopyState::evicting;
    return {};
  }
  if (!heir(e, t, false) && !heir(e, t, true)) SLUICE_RETURN_IF_ERROR(reserve_write(e, t));
  c.state = CopyState::writing;
  c.stage = Stage::waiting;
  return {};
}

Status BlockTable::reserve_write(Entry& e, size_t t) {
  Copy& c = copy(e, t);
  const bool staged = !tiers_[t]->space.host_accessible();
  if (staged && !tiers_[t]->links[0])
    return error(Code::unsupported, "tier {} is not connected to the host's memory", tiers_[t]->space.name());
  if (!spill_)
    return error(Code::over_budget, "block {} cannot be written out: there is no spill file", e.block.id.value);
  if (e.spill == RangeAllocator::none) e.spill = spill_->allocate(e.block.slot_size());
  if (e.spill == RangeAllocator::none)
    return error(Code::over_budget, "block {} cannot be written out: the spill file of {} bytes is full",
                 e.block.id.value, spill_->capacity());
  if (staged) {
    Result<SlotId> staging = tiers_[0]->space.allocate(e.block.slot_size());
    if (!staging.ok()) {
      free_stale_spill(e);
      return staging.status().with_context("staging");
    }
    c.staging = *staging;
  }
  c.reserved = true;
  ++e.reserved;
  return {};
}

// Gives back what a write that will not be made had set aside.
void BlockTable::unreserve(Entry& e, Copy& c) {
  free_staging(c);
  if (std::exchange(c.reserved, false)) --e.reserved;
  free_stale_spill(e);
}

void BlockTable::advance_write(Entry& e, size_t t, JobList* jobs) {
  Copy& c = copy(e, t);
  if (c.stage == Stage::waiting) return begin_write(e, t, jobs);
  if (!c.io.done()) return;
  const Status status = c.io.status();
  if (c.stage == Stage::writing || !status.ok()) return end_write(e, t, status);
  if (!valid(e, c)) return end_write(e, t, error(Code::cancelled, "block {} was changed", e.block.id.value));
  if (e.spill_uses == 0 && jobs != nullptr && !jobs->full()) issue(e, t, Job::Kind::write, *jobs);
}

// Hands the keeping over, or starts the write once nobody uses the copy and its place in the file.
void BlockTable::begin_write(Entry& e, size_t t, JobList* jobs) {
  Copy& c = copy(e, t);
  if (!valid(e, c)) {
    unreserve(e, c);
    c.state = CopyState::dirty;
    return;
  }
  if (const auto other = heir(e, t, false)) {
    unreserve(e, c);
    c.state = CopyState::evicting;
    copy(e, *other).state = CopyState::dirty;
    return;
  }
  if (c.uses > 0 || !c.releases.empty() || heir(e, t, true)) return;
  if (!c.reserved) {
    if (Status refused = reserve_write(e, t); !refused.ok()) {
      c.state = CopyState::dirty;
      e.write_failure = std::make_unique<Status>(refused);
      return;
    }
  }
  if (e.spill_uses > 0 || jobs == nullptr || jobs->full()) return;
  ++transfers_.started;
  issue(e, t, c.staging == no_slot ? Job::Kind::write : Job::Kind::copy_out, *jobs);
}

void BlockTable::issue(Entry& e, size_t t, Job::Kind kind, JobList& jobs) {
  Copy& c = copy(e, t);
  c.starting = true;
  c.stage = kind == Job::Kind::write ? Stage::writing : Stage::copying;
  list(e, t);
  Job& job = jobs.add();
  job.kind = kind;
  job.block = &e.block;
  job.tier = TierId{static_cast<uint16_t>(t)};
  job.slot = tiers_[t]->space.address(c.slot);
  if (c.staging != no_slot) job.staging = tiers_[0]->space.address(c.staging);
  if (kind == Job::Kind::copy_out) return;
  ++e.spill_uses;
  e.spill_version = no_version;
  job.spill = {spill_file_, spill_->offset(e.spill), e.block.home.empty() ? e.block.bytes : e.block.slot_size()};
}

void BlockTable::end_write(Entry& e, size_t t, const Status& status) {
  Copy& c = copy(e, t);
  if (c.stage == Stage::writing) --e.spill_uses;
  c.stage = Stage::waiting;
  c.io = Event();
  count_end(status);
  if (status.ok()) {
    e.spill_version = c.version;
    tiers_[t]->bytes_out += e.block.bytes;
    c.state = CopyState::evicting;
  } else {
    c.state = CopyState::dirty;
    if (valid(e, c)) e.write_failure = std::make_unique<Status>(status);
  }
  unreserve(e, c);
}

void BlockTable::close(CancelList& cancel, std::vector<Event>& wait) {
  for (size_t t = 0; t < tiers_.size(); ++t)
    for (uint32_t b = tiers_[t]->head; b != none; b = tiers_[t]->copies[b].next) {
      const Copy& c = tiers_[t]->copies[b];
      add_cancel(entries_[b], t, cancel);
      if (c.state == CopyState::writing && c.stage == Stage::writing) cancel.push_back(c.io);
      wait.push_back(c.ready);
      wait.push_back(c.io);
      wait.insert(wait.end(), c.releases.begin(), c.releases.end());
    }
}

void BlockTable::free_all() {
  for (Entry& e : entries_)
    for (size_t t = 0; t < tiers_.size(); ++t) {
      if (copy(e, t).state == CopyState::absent) continue;
      SLUICE_CHECK(copy(e, t).pins == 0);
      free_copy(e, t);
    }
}

}  // namespace sluice::tier
