#include "offload/plan/weight_stream.h"

#include <algorithm>

#include "core/error.h"

namespace sluice::plan {
namespace {

// Evicts a copy that nobody has pinned, failed ones too.
void wait_until_gone(tier::TierManager& tiers, BlockId id, TierId tier) {
  while (tiers.state(id, tier) != tier::CopyState::absent) {
    tiers.poll();
    if (tiers.evict(id, tier).ok()) tiers.poll();
    if (const Event next = tiers.pending(tier); !(next == Event())) next.wait().ignore();
  }
}

}  // namespace

Result<WeightBlocks> WeightBlocks::create(tier::TierManager& tiers, const WeightMap& weights) {
  WeightBlocks blocks(tiers);
  for (const WeightBlock& b : weights.blocks) {
    const BlockKind kind = b.role == BlockRole::expert  ? BlockKind::expert
                           : b.role == BlockRole::table ? BlockKind::table
                                                        : BlockKind::weight;
    SLUICE_ASSIGN_OR_RETURN(const BlockId id, tiers.add_block(kind, b.extents));
    blocks.ids_.push_back(id);
  }
  return blocks;
}

WeightBlocks::~WeightBlocks() {
  if (ids_.empty()) return;  // moved from
  for (const BlockId id : ids_) tiers_->drop(id);
  tiers_->poll();
}

void WeightBlocks::evict_all(TierId tier) const {
  for (const BlockId id : ids_) tiers_->evict(id, tier).ignore();  // what cannot leave yet is asked again
  for (const BlockId id : ids_) wait_until_gone(*tiers_, id, tier);
}

WeightStream::WeightStream(tier::TierManager& tiers, TierId tier, const WeightBlocks& blocks, const Graph& graph,
                           const Plan& plan, uint8_t site, TierId lent)
    : tiers_(tiers),
      tier_(tier),
      lent_tier_(lent),
      blocks_(blocks),
      movement_(plan.movement),
      holding_(plan.movement.sites[site]),
      returns_(blocks.size(), false),
      pins_(blocks.size()),
      uses_left_(blocks.size(), 0) {
  for (const bool large : {false, true})
    for (const bool prompt : {false, true})
      cycles_[2 * large + prompt] = {streamed_blocks(graph, plan, prompt, site, large),
                                     block_uses(graph, plan, prompt, site)};
  for (uint32_t i = 0; i < blocks.size(); ++i)
    if (holding_.lends(i)) lent_.push_back(i);
}

WeightStream::~WeightStream() { start_over(); }

// Where others hold the memory for now, waits for them.
Status WeightStream::fetch_in_time(uint32_t index, TierId tier) {
  for (;;) {
    Status status = tiers_.fetch(blocks_[index], tier);
    if (status.code() != Code::over_budget) return status;
    SLUICE_RETURN_IF_ERROR(wait_for_room(status, tier));
  }
}

Status WeightStream::load(void (*progress)(void*, uint64_t, uint64_t), void* context) {
  std::vector<uint32_t> wanted;
  for (uint32_t i = 0; i < blocks_.size(); ++i)
    if (holding_.resident[i]) wanted.push_back(i);
  for (const uint32_t i : wanted) {
    SLUICE_RETURN_IF_ERROR(fetch_in_time(i, tier_).with_context("loading weights"));
    SLUICE_ASSIGN_OR_RETURN(pins_[i], tiers_.pin(blocks_[i], tier_));
  }
  uint64_t done = 0;
  for (const uint32_t i : wanted) {
    SLUICE_RETURN_IF_ERROR(pins_[i].ready().wait().with_context("loading weights"));
    done += slot_bytes(i);
    if (progress != nullptr) progress(context, done, holding_.resident_bytes);
  }
  tiers_.poll();
  return {};
}

Status WeightStream::begin_pass(bool prompt, bool large) {
  if (order() != cycle(prompt, large).order) drop_streamed();
  prompt_ = prompt;
  large_ = large;
  uses_left_ = cycle(prompt, large).uses;
  takes_back_ = !large && !lent_is_here_ && !lent_.empty();
  if (large) lend();
  if (takes_back_) SLUICE_RETURN_IF_ERROR(take_back());
  else note_returned();
  return run_ahead();
}

void WeightStream::lend() {
  if (!lent_is_here_) return;
  for (const uint32_t index : lent_) {
    returns_[index] = false;
    drop(index, lent_tier_);
  }
  lent_is_here_ = false;
}

bool WeightStream::awaits() const {
  return std::any_of(lent_.begin(), lent_.end(), [this](uint32_t index) { return returns_[index]; });
}

// A pass need not use all that came back in the one before. What has come without a failure is waited for no more.
void WeightStream::note_returned() {
  for (const uint32_t index : lent_)
    if (returns_[index] && pins_[index].ready().done() && pins_[index].ready().status().ok()) returns_[index] = false;
}

// In the order of use, so that the pass may begin with the first ones.
Status WeightStream::take_back() {
  lent_is_here_ = true;
  for (const uint32_t index : lent_) {
    SLUICE_RETURN_IF_ERROR(fetch_in_time(index, lent_tier_));
    SLUICE_ASSIGN_OR_RETURN(pins_[index], tiers_.pin(blocks_[index], lent_tier_));
    returns_[index] = true;
  }
  return {};
}

Status WeightStream::run_ahead() {
  if (order().empty()) return {};
  tiers_.poll();
  while (next_issue_ < next_done_ + order().size()) {
    const uint32_t index = order()[next_issue_ % order().size()];
    const uint64_t bytes = slot_bytes(index);
    if (next_issue_ > next_use_ && ahead_bytes_ + bytes > holding_.ahead_bytes) return {};
    const Status status = tiers_.fetch(blocks_[index], tier_);
    if (status.code() == Code::over_budget) return {};
    SLUICE_RETURN_IF_ERROR(status);
    ahead_bytes_ += bytes;
    ++next_issue_;
  }
  return {};
}

Status WeightStream::wait_for_room(const Status& why, TierId tier) {
  const Event next = tiers_.pending(tier);
  if (next == Event()) return tiers_.poll() ? Status() : why;
  next.wait().ignore();
  tiers_.poll();
  return {};
}

Result<const std::byte*> WeightStream::use(const Tile& tile, Queue& queue) {
  const uint32_t index = tile.block;
  if (!pins_[index]) {
    SLUICE_CHECK(order()[next_use_ % order().size()] == index);
    SLUICE_RETURN_IF_ERROR(run_ahead());
    while (next_issue_ == next_use_) {
      SLUICE_RETURN_IF_ERROR(
          wait_for_room(error(Code::over_budget, "no room to stream a block of {}", slot_bytes(index)), tier_));
      SLUICE_RETURN_IF_ERROR(run_ahead());
    }
    SLUICE_ASSIGN_OR_RETURN(pins_[index], tiers_.pin(blocks_[index], tier_));
    ahead_bytes_ -= slot_bytes(index);
    ++next_use_;
    queue.wait(pins_[index].ready());
  } else if (returns_[index]) {
    queue.wait(pins_[index].ready());
    returns_[index] = false;
  }
  return pins_[index].data() + tile.offset;
}

void WeightStream::used(std::span<const Tile* const> tiles, Queue& queue) {
  Event done;
  for (const Tile* tile : tiles) {
    const uint32_t index = tile->block;
    if (holding_.stays(index, large_) || --uses_left_[index] > 0) continue;
    if (done == Event()) done = queue.signal_aside();
    pins_[index].release(done);
    tiers_.evict(blocks_[index], tier_).ignore();  // a clean copy with a home: nothing to write
  }
  while (next_done_ < next_use_ && uses_left_[order()[next_done_ % order().size()]] == 0) ++next_done_;
}

const std::byte* WeightStream::resident(const Tile& tile) const {
  return holding_.resident[tile.block] && pins_[tile.block] ? pins_[tile.block].data() + tile.offset : nullptr;
}

void WeightStream::drop(uint32_t index, TierId tier) {
  pins_[index].release();
  tiers_.cancel(blocks_[index], tier);
  wait_until_gone(tiers_, blocks_[index], tier);
}

void WeightStream::start_over() {
  drop_streamed();
  lend();
}

void WeightStream::drop_streamed() {
  for (const uint32_t index : order()) drop(index, tier_);
  next_use_ = next_done_ = next_issue_ = 0;
  ahead_bytes_ = 0;
}

}  // namespace sluice::plan
