#include "offload/tier/slot_space.h"

#include <algorithm>

#include "core/block.h"
#include "core/bytes.h"
#include "core/error.h"

namespace sluice::tier {

namespace {

uint32_t most_slots(uint64_t capacity, uint32_t max_slots) {
  return static_cast<uint32_t>(std::min<uint64_t>(capacity / io_unit, max_slots));
}

}  // namespace

SlotSpace::SlotSpace(std::string name, Memory& memory, Budget& budget, uint32_t max_slots)
    : name_(std::move(name)), max_slots_(max_slots), host_accessible_(memory.host_accessible()), budget_(budget) {
  use(&memory);
}

void SlotSpace::use(Memory* memory) {
  std::lock_guard lock(mutex_);
  SLUICE_CHECK(!ranges_ || ranges_->used() == 0);
  SLUICE_CHECK(memory == nullptr || memory->host_accessible() == host_accessible_);
  base_ = memory != nullptr ? memory->base() : nullptr;
  SLUICE_CHECK(reinterpret_cast<uintptr_t>(base_) % io_unit == 0);
  const uint64_t capacity = memory != nullptr ? memory->capacity() : 0;
  ranges_.emplace(capacity, io_unit, most_slots(capacity, max_slots_));
  charges_.reserve(ranges_->index_bound());
}

Result<SlotId> SlotSpace::allocate(uint64_t bytes) {
  SLUICE_ASSIGN_OR_RETURN(Reservation charge, budget_.reserve(align_up(bytes, io_unit), name_));
  std::lock_guard lock(mutex_);
  const SlotId slot = ranges_->allocate(bytes);
  if (slot == no_slot)
    return error(Code::over_budget, "tier {}: no room for {}: {} of {} are in use, the longest free run is {}", name_,
                 format_size(bytes), format_size(ranges_->used()), format_size(ranges_->capacity()),
                 format_size(ranges_->largest_free()));
  if (slot >= charges_.size()) charges_.resize(slot + 1);
  charges_[slot] = std::move(charge);
  peak_ = std::max(peak_, ranges_->used());
  return slot;
}

void SlotSpace::free(SlotId slot) {
  std::lock_guard lock(mutex_);
  ranges_->free(slot);
  charges_[slot].reset();
}

std::byte* SlotSpace::address(SlotId slot) const {
  std::lock_guard lock(mutex_);
  return base_ + ranges_->offset(slot);
}

uint64_t SlotSpace::capacity() const {
  std::lock_guard lock(mutex_);
  return ranges_->capacity();
}

uint64_t SlotSpace::used() const {
  std::lock_guard lock(mutex_);
  return ranges_->used();
}

uint64_t SlotSpace::peak() const {
  std::lock_guard lock(mutex_);
  return peak_;
}

}  // namespace sluice::tier
