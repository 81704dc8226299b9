#include "offload/tier/range_allocator.h"

#include <bit>

#include "core/bytes.h"
#include "core/error.h"

namespace sluice::tier {

RangeAllocator::RangeAllocator(uint64_t capacity, uint64_t unit, uint32_t max_ranges)
    : unit_(unit), capacity_(align_down(capacity, unit)), max_ranges_(max_ranges) {
  SLUICE_CHECK(is_power_of_two(unit) && max_ranges < UINT32_MAX / 4);
  bins_.fill(none);
  nodes_.reserve(index_bound());
  if (capacity_ == 0) return;
  const uint32_t all = new_node();
  nodes_[all].bytes = capacity_;
  put_in_bin(all);
}

uint32_t RangeAllocator::allocate(uint64_t bytes) {
  if (bytes == 0 || bytes > capacity_ || ranges_ == max_ranges_) return none;
  const uint64_t wanted = align_up(bytes, unit_);
  const uint32_t found = best_fit(wanted);
  if (found == none) return none;
  take_from_bin(found);
  if (nodes_[found].bytes > wanted) split(found, wanted);
  used_ += wanted;
  ++ranges_;
  return found;
}

void RangeAllocator::free(uint32_t range) {
  SLUICE_CHECK(range < nodes_.size() && !nodes_[range].free && nodes_[range].bytes > 0);
  used_ -= nodes_[range].bytes;
  --ranges_;
  const uint32_t after = nodes_[range].after;
  if (after != none && nodes_[after].free) {
    take_from_bin(after);
    absorb_next(range);
  }
  const uint32_t before = nodes_[range].before;
  if (before != none && nodes_[before].free) {
    take_from_bin(before);
    absorb_next(before);
    range = before;
  }
  put_in_bin(range);
}

uint64_t RangeAllocator::largest_free() const {
  if (filled_bins_ == 0) return 0;
  uint64_t largest = 0;
  for (uint32_t n = bins_[63 - std::countl_zero(filled_bins_)]; n != none; n = nodes_[n].next)
    largest = nodes_[n].bytes > largest ? nodes_[n].bytes : largest;
  return largest;
}

int RangeAllocator::bin_of(uint64_t bytes) const { return 63 - std::countl_zero(bytes / unit_); }

uint32_t RangeAllocator::best_in_bin(int bin, uint64_t bytes) const {
  uint32_t best = none;
  for (uint32_t n = bins_[bin]; n != none; n = nodes_[n].next) {
    if (nodes_[n].bytes == bytes) return n;
    if (nodes_[n].bytes > bytes && (best == none || nodes_[n].bytes < nodes_[best].bytes)) best = n;
  }
  return best;
}

uint32_t RangeAllocator::best_fit(uint64_t bytes) const {
  const int own = bin_of(bytes);
  const uint32_t here = best_in_bin(own, bytes);
  if (here != none) return here;
  const uint64_t larger = own == 63 ? 0 : filled_bins_ >> (own + 1) << (own + 1);
  return larger == 0 ? none : best_in_bin(std::countr_zero(larger), bytes);
}

void RangeAllocator::put_in_bin(uint32_t node) {
  Node& n = nodes_[node];
  const int bin = bin_of(n.bytes);
  n.free = true;
  n.prev = none;
  n.next = bins_[bin];
  if (n.next != none) nodes_[n.next].prev = node;
  bins_[bin] = node;
  filled_bins_ |= uint64_t{1} << bin;
}

void RangeAllocator::take_from_bin(uint32_t node) {
  Node& n = nodes_[node];
  const int bin = bin_of(n.bytes);
  n.free = false;
  if (n.next != none) nodes_[n.next].prev = n.prev;
  if (n.prev != none) nodes_[n.prev].next = n.next;
  else bins_[bin] = n.next;
  if (bins_[bin] == none) filled_bins_ &= ~(uint64_t{1} << bin);
}

uint32_t RangeAllocator::new_node() {
  if (retired_ != none) {
    const uint32_t node = retired_;
    retired_ = nodes_[node].next;
    nodes_[node] = Node();
    return node;
  }
  SLUICE_CHECK(nodes_.size() < index_bound());
  nodes_.emplace_back();
  return static_cast<uint32_t>(nodes_.size() - 1);
}

void RangeAllocator::retire(uint32_t node) {
  nodes_[node] = Node();
  nodes_[node].next = retired_;
  retired_ = node;
}

// Keeps the first `bytes` of a run and makes the rest a free run of its own.
void RangeAllocator::split(uint32_t node, uint64_t bytes) {
  const uint32_t rest = new_node();
  Node& n = nodes_[node];
  Node& r = nodes_[rest];
  r.offset = n.offset + bytes;
  r.bytes = n.bytes - bytes;
  r.before = node;
  r.after = n.after;
  if (n.after != none) nodes_[n.after].before = rest;
  n.after = rest;
  n.bytes = bytes;
  put_in_bin(rest);
}

void RangeAllocator::absorb_next(uint32_t node) {
  Node& n = nodes_[node];
  const uint32_t gone = n.after;
  n.bytes += nodes_[gone].bytes;
  n.after = nodes_[gone].after;
  if (n.after != none) nodes_[n.after].before = node;
  retire(gone);
}

}  // namespace sluice::tier
