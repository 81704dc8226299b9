// BlockTable: what may free memory when it signals.
#include "offload/tier/block_table.h"

namespace sluice::tier {

// The Event that a copy on its way out waits for; nothing if it is not, or if only a pin holds it.
std::optional<Event> BlockTable::blocking(const Entry& e, size_t t) const {
  const Copy& c = copy(e, t);
  const bool leaving = c.leaving || c.cancelling || c.state == CopyState::writing || c.state == CopyState::evicting ||
                       c.state == CopyState::failed || !valid(e, c);
  if (!leaving || c.pins > 0) return std::nullopt;
  if (c.starting || c.uses > 0) return Event(now_, 0);
  if (c.state == CopyState::loading) return under_load(c);
  if (c.state == CopyState::writing && c.stage != Stage::waiting) return c.io;
  if (!c.releases.empty()) return c.releases.first();
  for (size_t o = 0; o < tiers_.size(); ++o) {  // another copy that is to take over, or that uses the spill file
    const Copy& other = copy(e, o);
    if (o == t || other.starting) continue;
    if (other.state == CopyState::loading) return under_load(other);
    if (other.state == CopyState::writing && other.stage != Stage::waiting) return other.io;
  }
  return Event(now_, 0);
}

// What a load waits for: its copy or read, and the read beneath a copy that failed early.
Event BlockTable::under_load(const Copy& c) const {
  if (!c.ready.done()) return c.ready;
  return c.io.done() ? Event(now_, 0) : c.io;
}

std::optional<Event> BlockTable::staging_end(const Copy& c) const {
  if (c.staging == no_slot) return std::nullopt;
  if (c.starting) return Event(now_, 0);
  if (c.state == CopyState::loading) return under_load(c);
  if (c.stage != Stage::waiting) return c.io;
  return c.releases.empty() ? Event(now_, 0) : c.releases.first();
}

Event BlockTable::pending(TierId tier) const {
  std::lock_guard lock(mutex_);
  if (tier.value >= tiers_.size()) return {};
  const Event own = pending_locked(tier.value);
  const bool through_host = own == Event() && !tiers_[tier.value]->space.host_accessible();
  return through_host ? pending_locked(0) : own;
}

// One that has signalled already, else the oldest; copies on their way out before those in use.
Event BlockTable::pending_locked(size_t t) const {
  Event leaving, in_use;
  const auto consider = [](Event& best, const std::optional<Event>& event) {
    if (event && (best == Event() || (event->done() && !best.done()))) best = *event;
  };
  for (size_t s = 0; s < tiers_.size(); ++s) {
    if (s != t && t != 0) continue;
    for (uint32_t b = tiers_[s]->head; b != none; b = tiers_[s]->copies[b].next) {
      const Copy& c = tiers_[s]->copies[b];
      consider(leaving, s == t ? blocking(entries_[b], s) : staging_end(c));
      if (s == t && !c.releases.empty()) consider(in_use, c.releases.first());
    }
  }
  return leaving == Event() ? in_use : leaving;
}

}  // namespace sluice::tier
