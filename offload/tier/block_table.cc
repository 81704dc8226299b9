#include "offload/tier/block_table.h"

#include <algorithm>

#include "core/bytes.h"
#include "core/error.h"

namespace sluice::tier {

namespace {

constexpr uint64_t most_block_bytes = uint64_t{1} << 46;

Status check_block(uint64_t bytes, const std::vector<Extent>& home) {
  uint64_t total = 0;
  for (const Extent& e : home) {
    uint64_t end = 0;
    if (e.bytes == 0 || !checked_add(e.offset, e.bytes, end) || !checked_add(total, e.bytes, total))
      return error(Code::invalid_argument, "a block cannot have an extent of {} bytes at offset {}", e.bytes, e.offset);
  }
  const uint64_t all = home.empty() ? bytes : total;
  if (all == 0 || all > most_block_bytes) return error(Code::invalid_argument, "a block cannot have {} bytes", all);
  return {};
}

}  // namespace

BlockTable::Tier::Tier(std::string name, Memory& memory, Budget& budget, uint32_t max_blocks)
    : space(std::move(name), memory, budget, 2 * max_blocks) {
  copies.reserve(max_blocks);
}

BlockTable::BlockTable(uint32_t max_blocks) : max_blocks_(max_blocks) {
  SLUICE_CHECK(max_blocks > 0 && max_blocks < UINT32_MAX / 16);
  entries_.reserve(max_blocks);
  unused_.reserve(max_blocks);
}

TierId BlockTable::add_tier(std::string name, Memory& memory, Budget& budget) {
  std::lock_guard lock(mutex_);
  SLUICE_CHECK(entries_.empty() && tiers_.size() < max_tiers);
  SLUICE_CHECK(!tiers_.empty() || memory.host_accessible());
  tiers_.push_back(std::make_unique<Tier>(std::move(name), memory, budget, max_blocks_));
  return TierId{static_cast<uint16_t>(tiers_.size() - 1)};
}

void BlockTable::connect(TierId from, TierId to) {
  std::lock_guard lock(mutex_);
  SLUICE_CHECK(from.value < tiers_.size() && to.value < tiers_.size() && from != to);
  tiers_[from.value]->links[to.value] = true;
}

Status BlockTable::replace_memory(TierId tier, Memory* memory) {
  std::lock_guard lock(mutex_);
  SLUICE_CHECK(tier.value < tiers_.size());
  SlotSpace& space = tiers_[tier.value]->space;
  if (space.used() > 0)
    return error(Code::invalid_argument, "tier {}: its memory cannot be replaced while {} of it are in use",
                 space.name(), format_size(space.used()));
  space.use(memory);
  return {};
}

void BlockTable::use_spill(FileId file, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  SLUICE_CHECK(!spill_);
  spill_.emplace(bytes, io_unit, max_blocks_);
  spill_file_ = file;
}

std::optional<FileId> BlockTable::spill_file() const {
  std::lock_guard lock(mutex_);
  return spill_ ? std::optional(spill_file_) : std::nullopt;
}

Result<BlockId> BlockTable::add(BlockKind kind, uint64_t bytes, std::vector<Extent> home) {
  SLUICE_RETURN_IF_ERROR(check_block(bytes, home));
  std::lock_guard lock(mutex_);
  if (unused_.empty()) {
    if (entries_.size() == max_blocks_)
      return error(Code::over_budget, "the block table is full: it was made for {} blocks", max_blocks_);
    unused_.push_back(static_cast<uint32_t>(entries_.size()));
    entries_.emplace_back();
    for (auto& tier : tiers_) tier->copies.emplace_back();
  }
  Entry& e = entries_[unused_.back()];
  e.block = Block{BlockId{unused_.back()}, kind, bytes, std::move(home)};
  unused_.pop_back();
  e.references = 1;
  e.alive = e.used = true;
  if (!e.block.home.empty()) {
    e.block.bytes = 0;
    for (const Extent& extent : e.block.home) e.block.bytes += extent.bytes;
    e.version = 0;
    if (e.block.home.size() > 1) e.parts = std::make_unique<Event[]>(e.block.home.size() * tiers_.size());
  }
  return e.block.id;
}

const Block& BlockTable::block(BlockId id) const {
  std::lock_guard lock(mutex_);
  const Entry* e = find(id);
  SLUICE_CHECK(e != nullptr);
  return e->block;
}

void BlockTable::share(BlockId id) {
  std::lock_guard lock(mutex_);
  Entry* e = find(id);
  SLUICE_CHECK(e != nullptr && e->alive);
  ++e->references;
}

void BlockTable::drop(BlockId id, CancelList& cancel) {
  std::lock_guard lock(mutex_);
  Entry* e = find(id);
  SLUICE_CHECK(e != nullptr && e->alive);
  if (--e->references > 0) return;
  for (size_t t = 0; t < tiers_.size(); ++t) add_cancel(*e, t, cancel);
  e->alive = false;
  for (size_t t = 0; t < tiers_.size(); ++t) advance(*e, t, nullptr);
  free_stale_spill(*e);
  recycle(*e);
}

uint32_t BlockTable::references(BlockId id) const {
  std::lock_guard lock(mutex_);
  const Entry* e = find(id);
  return e == nullptr ? 0 : e->references;
}

Result<BlockTable::Lease> BlockTable::pin(BlockId id, TierId tier) {
  std::unique_lock lock(mutex_);
  Entry* e = find(id);
  if (e == nullptr || !e->alive || tier.value >= tiers_.size())
    return error(Code::not_found, "there is no block {} or no tier {}", id.value, tier.value);
  Copy& c = copy(*e, tier.value);
  wait_until_started(lock, c);
  const bool leased =
      c.state == CopyState::ready || c.state == CopyState::dirty || (c.state == CopyState::loading && !c.leaving);
  if (leased && valid(*e, c)) return lease(*e, tier.value);
  if (e->load_failure != nullptr && (c.state == CopyState::absent || c.state == CopyState::failed))
    return *e->load_failure;
  return error(Code::not_found, "block {} has no copy in tier {}", id.value, tiers_[tier.value]->space.name());
}

Result<BlockTable::Lease> BlockTable::create(BlockId id, TierId tier) {
  std::lock_guard lock(mutex_);
  Entry* e = find(id);
  if (e == nullptr || !e->alive || tier.value >= tiers_.size())
    return error(Code::not_found, "there is no block {} or no tier {}", id.value, tier.value);
  if (e->version != no_version)
    return error(Code::invalid_argument, "block {} has content already: fetch it", id.value);
  Copy& c = copy(*e, tier.value);
  SLUICE_ASSIGN_OR_RETURN(c.slot, tiers_[tier.value]->space.allocate(e->block.slot_size()));
  c.state = CopyState::dirty;
  c.version = e->version = ++e->last_version;
  return lease(*e, tier.value);
}

BlockTable::Lease BlockTable::lease(Entry& e, size_t t) {
  Copy& c = copy(e, t);
  ++c.pins;
  return {&e.block, tiers_[t]->space.address(c.slot), c.ready};
}

void BlockTable::mark_dirty(BlockId id, TierId tier) {
  std::lock_guard lock(mutex_);
  Entry& e = *find(id);
  Copy& c = copy(e, tier.value);
  SLUICE_CHECK(c.pins > 0);
  advance(e, tier.value, nullptr);
  if (!e.alive || c.state == CopyState::failed) return;
  SLUICE_CHECK(valid(e, c) && e.references == 1);
  const uint64_t before = c.version;
  c.version = e.version = ++e.last_version;
  if (c.state == CopyState::loading) {
    if (!c.changed) {
      c.base = before;
      c.changed = true;
      ++e.unsettled;
    }
    return;
  }
  c.state = CopyState::dirty;
  drop_older(e);
}

void BlockTable::unpin(BlockId id, TierId tier, const Event& after) {
  std::unique_lock lock(mutex_);
  Entry& e = *find(id);
  Copy& c = copy(e, tier.value);
  SLUICE_CHECK(c.pins > 0);
  hold_until(lock, c, after);
  --c.pins;
  advance(e, tier.value, nullptr);
}

CopyState BlockTable::state(BlockId id, TierId tier) const {
  std::lock_guard lock(mutex_);
  const Entry* e = find(id);
  return e == nullptr || tier.value >= tiers_.size() ? CopyState::absent : copy(*e, tier.value).state;
}

bool BlockTable::spilled(BlockId id) const {
  std::lock_guard lock(mutex_);
  const Entry* e = find(id);
  return e != nullptr && e->alive && spilled(*e);
}

TierStats BlockTable::stats(TierId tier) const {
  std::lock_guard lock(mutex_);
  const Tier& t = *tiers_.at(tier.value);
  return {t.space.name(), t.space.capacity(), t.space.used(), t.space.peak(), t.bytes_in, t.bytes_out};
}

TransferStats BlockTable::transfers() const {
  std::lock_guard lock(mutex_);
  return transfers_;
}

BlockTable::Entry* BlockTable::find(BlockId id) {
  return id.value < entries_.size() && entries_[id.value].used ? &entries_[id.value] : nullptr;
}

const BlockTable::Entry* BlockTable::find(BlockId id) const { return const_cast<BlockTable*>(this)->find(id); }

void BlockTable::list(Entry& e, size_t t) {
  Copy& c = copy(e, t);
  if (c.listed) return;
  Tier& tier = *tiers_[t];
  c.listed = true;
  c.prev = tier.tail;
  c.next = none;
  (tier.tail == none ? tier.head : tier.copies[tier.tail].next) = e.block.id.value;
  tier.tail = e.block.id.value;
  n_listed_.fetch_add(1, std::memory_order_relaxed);
}

void BlockTable::unlist(Entry& e, size_t t) {
  Copy& c = copy(e, t);
  if (!c.listed) return;
  Tier& tier = *tiers_[t];
  c.listed = false;
  (c.prev == none ? tier.head : tier.copies[c.prev].next) = c.next;
  (c.next == none ? tier.tail : tier.copies[c.next].prev) = c.prev;
  n_listed_.fetch_sub(1, std::memory_order_relaxed);
}

// Adds `event` to those that the copy's memory waits for. The caller holds a pin or a use meanwhile.
void BlockTable::hold_until(std::unique_lock<std::mutex>& lock, Copy& c, const Event& event) {
  while (!c.releases.add(event)) {
    const Event first = c.releases.first();
    lock.unlock();
    first.wait().ignore();
    lock.lock();
  }
}

void BlockTable::wait_until_started(std::unique_lock<std::mutex>& lock, const Copy& c) {
  started_.wait(lock, [&] { return !c.starting; });
}

// After a new version of the block has come to be.
void BlockTable::drop_older(Entry& e) {
  for (size_t t = 0; t < tiers_.size(); ++t)
    if (!valid(e, copy(e, t))) advance(e, t, nullptr);
  free_stale_spill(e);
}

// Ends a block that was dropped, when the last trace of it is gone.
void BlockTable::recycle(Entry& e) {
  if (e.alive || !e.used || e.spill_uses > 0 || e.reserved > 0) return;
  for (size_t t = 0; t < tiers_.size(); ++t)
    if (copy(e, t).state != CopyState::absent) return;
  free_stale_spill(e);
  const BlockId id = e.block.id;
  e = Entry();
  e.block.id = id;  // it stays the index of the copies
  unused_.push_back(id.value);
}

}  // namespace sluice::tier
