// WeightStream: the weights of a plan in one memory tier: those that stay, and those that pass through.
//
// Every pass over the graph reads the streamed blocks in the same order, so the stream is a cycle: while
// one block is used, the next ones are on their way, and behind the last one of a pass come the first of
// the next. Blocks are released with the Event of their last use and evicted at once; what stays is
// pinned once. Because use follows the order of issue, and staging holds at least three of the largest
// block, the block that is wanted next always gets its room: everything before it is on its way out.
//
// Threads: one, that of the executor.
#pragma once

#include <vector>

#include "core/queue.h"
#include "offload/plan/plan.h"
#include "offload/tier/tier_manager.h"

namespace sluice::plan {

class WeightStream {
 public:
  // `movement` and `tiers` must outlive the stream. Registers all blocks; loads nothing.
  static Result<WeightStream> create(tier::TierManager& tiers, TierId tier, const Movement& movement);
  WeightStream(WeightStream&&) = default;
  ~WeightStream();

  // Reads all that stays; returns when it is there. `progress` (may be empty) is told bytes done of all.
  Status load(void (*progress)(void* context, uint64_t done, uint64_t total) = nullptr, void* context = nullptr);

  // A pass begins at the first op.
  Status begin_pass();
  // After a pass that failed or was left early: drops what is in use or on its way, failed reads among it.
  // Nothing that was enqueued may still read the stream's memory.
  void start_over();

  // The first row of a tile. Work enqueued on `queue` after this call may read it.
  Result<const std::byte*> use(const Tile& tile, Queue& queue);
  // The work enqueued on `queue` so far was the tile's last in this pass.
  void used(const Tile& tile, Queue& queue);

  // Issues reads as far ahead as the plan says.
  Status run_ahead();

  // A vector, or a tile that stays; null if it does not stay.
  const std::byte* resident(const Tile& tile) const;
  BlockId block(uint32_t index) const { return ids_[index]; }
  TierId tier() const { return tier_; }

 private:
  WeightStream(tier::TierManager& tiers, TierId tier, const Movement& movement)
      : tiers_(&tiers), tier_(tier), movement_(&movement) {}
  Status wait_for_room(const Status& why);

  tier::TierManager* tiers_;
  TierId tier_;
  const Movement* movement_;
  std::vector<BlockId> ids_;         // by block
  std::vector<tier::Pin> pins_;      // by block: what stays, and what is in use
  std::vector<uint32_t> uses_left_;  // by block, of this pass
  std::vector<uint32_t> order_;      // streamed blocks in the order of use
  // Counts of blocks since the stream began or started over; modulo its size they are positions in order_.
  size_t next_done_ = 0, next_use_ = 0, next_issue_ = 0;
  uint64_t ahead_bytes_ = 0;  // issued and not yet used
};

}  // namespace sluice::plan
