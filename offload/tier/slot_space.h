// SlotSpace: the memory of one tier, cut into slots that are each charged to the tier's Budget.
//
// A slot is whole io_units of the tier's Memory, so that a Store can read into it. allocate() charges
// first and cuts then; free() gives both back. The Memory may be larger than the Budget (the budget is
// the limit) or smaller (then the memory is), and the Budget may be shared with others.
// Threads: any. Nothing but address arithmetic is done to the memory.
#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/memory.h"
#include "offload/tier/budget.h"
#include "offload/tier/range_allocator.h"

namespace sluice::tier {

using SlotId = uint32_t;
inline constexpr SlotId no_slot = RangeAllocator::none;

class SlotSpace {
 public:
  // Both must outlive this; at most `max_slots` slots at once.
  SlotSpace(std::string name, Memory& memory, Budget& budget, uint32_t max_slots);

  // over_budget names the budget or the tier that is full.
  Result<SlotId> allocate(uint64_t bytes);
  void free(SlotId slot);
  std::byte* address(SlotId slot) const;
  // Other memory of the same kind from now on, or none: then nothing finds room. No slot may be out.
  void use(Memory* memory);

  const std::string& name() const { return name_; }
  bool host_accessible() const { return host_accessible_; }
  uint64_t capacity() const;
  uint64_t used() const;
  uint64_t peak() const;

 private:
  const std::string name_;
  const uint32_t max_slots_;
  const bool host_accessible_;
  Budget& budget_;
  mutable std::mutex mutex_;
  std::byte* base_ = nullptr;
  std::optional<RangeAllocator> ranges_;
  std::vector<Reservation> charges_;  // by SlotId
  uint64_t peak_ = 0;
};

}  // namespace sluice::tier
