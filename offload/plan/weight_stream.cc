#include "offload/plan/weight_stream.h"

#include "core/error.h"

namespace sluice::plan {

Result<WeightStream> WeightStream::create(tier::TierManager& tiers, TierId tier, const Movement& movement) {
  WeightStream stream(tiers, tier, movement);
  const auto& blocks = movement.weights.blocks;
  stream.pins_.resize(blocks.size());
  stream.uses_left_.assign(blocks.size(), 0);
  for (uint32_t i = 0; i < blocks.size(); ++i) {
    const BlockKind kind = blocks[i].role == BlockRole::expert  ? BlockKind::expert
                           : blocks[i].role == BlockRole::table ? BlockKind::table
                                                                : BlockKind::weight;
    SLUICE_ASSIGN_OR_RETURN(const BlockId id, tiers.add_block(kind, blocks[i].extents));
    stream.ids_.push_back(id);
    if (!movement.resident[i] && blocks[i].role == BlockRole::matrix) stream.order_.push_back(i);
  }
  return stream;
}

WeightStream::~WeightStream() {
  if (ids_.empty()) return;  // moved from
  start_over();
  for (tier::Pin& pin : pins_) pin.release();
  for (const BlockId id : ids_) tiers_->drop(id);
  tiers_->poll();
}

Status WeightStream::load(void (*progress)(void*, uint64_t, uint64_t), void* context) {
  std::vector<uint32_t> wanted;
  for (uint32_t i = 0; i < ids_.size(); ++i)
    if (movement_->resident[i]) wanted.push_back(i);
  for (const uint32_t i : wanted) {
    SLUICE_RETURN_IF_ERROR(tiers_->fetch(ids_[i], tier_).with_context("loading weights"));
    SLUICE_ASSIGN_OR_RETURN(pins_[i], tiers_->pin(ids_[i], tier_));
  }
  uint64_t done = 0;
  for (const uint32_t i : wanted) {
    SLUICE_RETURN_IF_ERROR(pins_[i].ready().wait().with_context("loading weights"));
    done += movement_->weights.blocks[i].slot_bytes;
    if (progress != nullptr) progress(context, done, movement_->resident_bytes);
  }
  tiers_->poll();
  return {};
}

Status WeightStream::begin_pass() {
  for (size_t i = 0; i < uses_left_.size(); ++i) uses_left_[i] = movement_->weights.blocks[i].uses;
  return run_ahead();
}

Status WeightStream::run_ahead() {
  if (order_.empty()) return {};
  tiers_->poll();
  while (next_issue_ < next_done_ + order_.size()) {
    const uint32_t index = order_[next_issue_ % order_.size()];
    const uint64_t bytes = movement_->weights.blocks[index].slot_bytes;
    if (next_issue_ > next_use_ && ahead_bytes_ + bytes > movement_->ahead_bytes) return {};
    const Status status = tiers_->fetch(ids_[index], tier_);
    if (status.code() == Code::over_budget) return {};
    SLUICE_RETURN_IF_ERROR(status);
    ahead_bytes_ += bytes;
    ++next_issue_;
  }
  return {};
}

Status WeightStream::wait_for_room(const Status& why) {
  const Event next = tiers_->pending(tier_);
  if (next == Event()) return tiers_->poll() ? Status() : why;
  next.wait().ignore();
  tiers_->poll();
  return {};
}

Result<const std::byte*> WeightStream::use(const Tile& tile, Queue& queue) {
  const uint32_t index = tile.block;
  if (!pins_[index]) {
    SLUICE_CHECK(order_[next_use_ % order_.size()] == index);
    SLUICE_RETURN_IF_ERROR(run_ahead());
    while (next_issue_ == next_use_) {
      SLUICE_RETURN_IF_ERROR(wait_for_room(
          error(Code::over_budget, "no room to stream a block of {}", movement_->weights.blocks[index].slot_bytes)));
      SLUICE_RETURN_IF_ERROR(run_ahead());
    }
    SLUICE_ASSIGN_OR_RETURN(pins_[index], tiers_->pin(ids_[index], tier_));
    ahead_bytes_ -= movement_->weights.blocks[index].slot_bytes;
    ++next_use_;
    queue.wait(pins_[index].ready());
  }
  return pins_[index].data() + tile.offset;
}

void WeightStream::used(const Tile& tile, Queue& queue) {
  const uint32_t index = tile.block;
  if (movement_->resident[index] || --uses_left_[index] > 0) return;
  pins_[index].release(queue.signal());
  tiers_->evict(ids_[index], tier_).ignore();  // a clean copy with a home: nothing to write
  while (next_done_ < next_use_ && uses_left_[order_[next_done_ % order_.size()]] == 0) ++next_done_;
}

const std::byte* WeightStream::resident(const Tile& tile) const {
  return movement_->resident[tile.block] && pins_[tile.block] ? pins_[tile.block].data() + tile.offset : nullptr;
}

void WeightStream::start_over() {
  for (const uint32_t index : order_) {
    pins_[index].release();
    tiers_->cancel(ids_[index], tier_);
    while (tiers_->state(ids_[index], tier_) != tier::CopyState::absent) {
      tiers_->poll();
      if (tiers_->evict(ids_[index], tier_).ok()) tiers_->poll();
      if (const Event next = tiers_->pending(tier_); !(next == Event())) next.wait().ignore();
    }
  }
  next_use_ = next_done_ = next_issue_ = 0;
  ahead_bytes_ = 0;
}

}  // namespace sluice::plan
