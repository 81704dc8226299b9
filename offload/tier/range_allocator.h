// RangeAllocator: hands out ranges of a space that it never touches: device memory, a slab, a spill file.
//
// Offsets and lengths are multiples of `unit`. Best fit: the shortest free run that is long enough is
// cut at its beginning; a freed range is joined with its free neighbours at once, so two free runs never
// touch. Free runs are kept in one list per power of two of their length: allocate() looks through at
// most the lists of two powers, free() takes constant time.
//
// Bookkeeping is one vector whose capacity is fixed by the constructor, and which is filled only as far
// as it was ever needed; nothing is allocated later.
// Threads: none of its own; the owner locks.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace sluice::tier {

class RangeAllocator {
 public:
  static constexpr uint32_t none = UINT32_MAX;

  // At most `max_ranges` ranges are out at once. What `capacity` has beyond a multiple of `unit` (a
  // power of two) is not used.
  RangeAllocator(uint64_t capacity, uint64_t unit, uint32_t max_ranges);

  // The index of a new range of `bytes`, rounded up to `unit`; none if no run is long enough, if
  // max_ranges are out, or if `bytes` is 0.
  uint32_t allocate(uint64_t bytes);
  void free(uint32_t range);

  uint64_t offset(uint32_t range) const { return nodes_[range].offset; }
  uint64_t bytes(uint32_t range) const { return nodes_[range].bytes; }

  uint64_t capacity() const { return capacity_; }
  uint64_t used() const { return used_; }
  uint32_t ranges() const { return ranges_; }
  uint64_t largest_free() const;
  // Indices that were ever given are below this: for tables beside this one.
  uint32_t index_bound() const { return 2 * max_ranges_ + 1; }

 private:
  // A run of the space, in use or free. Neighbours by address are linked through before/after, free runs
  // of one power of two through prev/next; unused nodes through next.
  struct Node {
    uint64_t offset = 0, bytes = 0;
    uint32_t before = none, after = none;
    uint32_t prev = none, next = none;
    bool free = false;
  };

  int bin_of(uint64_t bytes) const;
  uint32_t best_in_bin(int bin, uint64_t bytes) const;
  uint32_t best_fit(uint64_t bytes) const;
  void put_in_bin(uint32_t node);
  void take_from_bin(uint32_t node);
  uint32_t new_node();
  void retire(uint32_t node);
  void split(uint32_t node, uint64_t bytes);
  void absorb_next(uint32_t node);

  const uint64_t unit_, capacity_;
  const uint32_t max_ranges_;
  uint64_t used_ = 0;
  uint32_t ranges_ = 0;
  std::vector<Node> nodes_;
  uint32_t retired_ = none;
  std::array<uint32_t, 64> bins_;
  uint64_t filled_bins_ = 0;  // bit b: bins_[b] is not empty
};

}  // namespace sluice::tier
