// WeightStream: the weights of a plan in the memory of one site: those that stay, and those that pass through.
//
// Every pass over the graph of one kind reads the streamed blocks in the same order, so the stream is a cycle:
// while one block is used, the next ones are on their way, and behind the last one of a pass come the first of
// the next. Blocks are released with the Event of their last use and evicted at once; what stays is pinned
// once. Because use follows the order of issue, and staging holds at least three of the largest block, the
// block that is wanted next always gets its room: everything before it is on its way out.
// A pass of another kind has another cycle: what was on its way for the old one is dropped.
//
// What is lent (Holding::lent) lies in a tier of its own, over memory that large passes need: it leaves before one,
// and comes back when the next small one begins.
//
// Threads: one, that of the executor.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "core/queue.h"
#include "offload/plan/plan.h"
#include "offload/tier/tier_manager.h"

namespace sluice::plan {

// The blocks of a WeightMap, known to a TierManager; every site's stream has copies of the same ones.
class WeightBlocks {
 public:
  // `tiers` and `weights` must outlive it. Loads nothing.
  static Result<WeightBlocks> create(tier::TierManager& tiers, const WeightMap& weights);
  WeightBlocks(WeightBlocks&& other) noexcept : tiers_(other.tiers_), ids_(std::move(other.ids_)) {
    other.ids_.clear();
  }
  ~WeightBlocks();  // no pins may be left
  BlockId operator[](uint32_t index) const { return ids_[index]; }
  size_t size() const { return ids_.size(); }
  // Lets all copies in `tier` go and returns when they are gone. No pins may be left there, and no stream.
  void evict_all(TierId tier) const;

 private:
  explicit WeightBlocks(tier::TierManager& tiers) : tiers_(&tiers) {}
  tier::TierManager* tiers_;
  std::vector<BlockId> ids_;  // by block of the map
};

class WeightStream {
 public:
  // `tier` is the site's memory for weights, `lent` the one for those that it lends, if it does. All else must outlive
  // the stream. Loads nothing.
  WeightStream(tier::TierManager& tiers, TierId tier, const WeightBlocks& blocks, const Graph& graph, const Plan& plan,
               uint8_t site, TierId lent = {});
  WeightStream(const WeightStream&) = delete;
  ~WeightStream();

  // Reads all that stays in every pass; returns when it is there. `progress` (may be empty) is told bytes done of all.
  Status load(void (*progress)(void* context, uint64_t done, uint64_t total) = nullptr, void* context = nullptr);

  // A pass begins at the first op. Nothing that was enqueued for others may still run.
  Status begin_pass(bool prompt, bool large = false);
  // After a pass that failed or was left early: drops what is in use or on its way, failed reads among it.
  // Nothing that was enqueued may still read the stream's memory.
  void start_over();

  // The first row of a tile. Work enqueued on `queue` after this call may read it.
  Result<const std::byte*> use(const Tile& tile, Queue& queue);
  // Whether use() would have nothing to wait for.
  bool at_hand(const Tile& tile) const { return pins_[tile.block] ? !returns_[tile.block] : next_issue_ > next_use_; }
  // The work enqueued on `queue` so far was the last of these tiles in this pass; one Event tells when it is done.
  void used(std::span<const Tile* const> tiles, Queue& queue);

  // Issues reads as far ahead as the plan says.
  Status run_ahead();

  // Some block passes through in small steps of this kind.
  bool streams(bool prompt) const { return !cycle(prompt, false).order.empty(); }
  // In this pass what was lent comes back, perhaps to another place.
  bool takes_back() const { return takes_back_; }
  // Some of it may not be there yet: use() waits for it.
  bool awaits() const;
  // A vector, or a tile that stays; null if it does not stay.
  const std::byte* resident(const Tile& tile) const;
  BlockId block(uint32_t index) const { return blocks_[index]; }
  TierId tier() const { return tier_; }

 private:
  struct Cycle {
    std::vector<uint32_t> order;  // streamed blocks in the order of use
    std::vector<uint32_t> uses;   // by block, of one pass
  };
  uint64_t slot_bytes(uint32_t index) const { return movement_.weights.blocks[index].slot_bytes; }
  const Cycle& cycle(bool prompt, bool large) const { return cycles_[2 * large + prompt]; }
  const std::vector<uint32_t>& order() const { return cycle(prompt_, large_).order; }
  Status take_back();
  void note_returned();
  void lend();
  void drop_streamed();
  void drop(uint32_t index, TierId tier);
  Status fetch_in_time(uint32_t index, TierId tier);
  Status wait_for_room(const Status& why, TierId tier);

  tier::TierManager& tiers_;
  const TierId tier_, lent_tier_;
  const WeightBlocks& blocks_;
  const Movement& movement_;
  const Holding& holding_;
  std::array<Cycle, 4> cycles_;          // of decoding, of prompts; then of those that are large
  std::vector<uint32_t> lent_;           // blocks
  bool prompt_ = false, large_ = false;  // the kind of the current pass
  bool lent_is_here_ = false, takes_back_ = false;
  std::vector<bool> returns_;        // by block: on its way back, in this pass or one before, and not waited for so far
  std::vector<tier::Pin> pins_;      // by block: what stays, and what is in use
  std::vector<uint32_t> uses_left_;  // by block, of this pass
  // Counts of blocks since the cycle began or started over; modulo its size they are positions in order().
  size_t next_done_ = 0, next_use_ = 0, next_issue_ = 0;
  uint64_t ahead_bytes_ = 0;  // issued and not yet used
};

}  // namespace sluice::plan
