// MergeChain: merges neighbours of a chain of symbols, the best pair first, the leftmost among equals. What
// symbols and pairs are is said by Rules:
//
//   using Symbol = …;
//   uint32_t rank(const Symbol& left, const Symbol& right) const;  // smaller is better; no_rank: no pair
//   bool is(uint32_t rank, const Symbol& left, const Symbol& right) const;  // do they still have this rank?
//   void join(uint32_t rank, Symbol& left, const Symbol& right) const;      // left becomes both
//
// Keeps its memory from chain to chain. O(n log n). One thread at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

namespace sluice::engine {

inline constexpr uint32_t no_rank = UINT32_MAX;

template <class Rules>
class MergeChain {
 public:
  using Symbol = typename Rules::Symbol;

  void clear() { links_.clear(); }
  void push(const Symbol& symbol) {
    const auto index = static_cast<int32_t>(links_.size());
    if (index > 0) links_.back().next = index;
    links_.push_back({symbol, index - 1, -1});
  }

  void merge(const Rules& rules) {
    queue_.clear();
    for (size_t i = 0; i < links_.size(); ++i) consider(rules, static_cast<int32_t>(i));
    while (!queue_.empty()) {
      std::pop_heap(queue_.begin(), queue_.end(), std::greater<>());
      const uint64_t best = queue_.back();
      queue_.pop_back();
      merge_at(rules, static_cast<uint32_t>(best >> 32), static_cast<int32_t>(best & UINT32_MAX));
    }
  }

  // The symbols that are left, in order.
  template <class Visit>
  void each(const Visit& visit) const {
    for (int32_t i = links_.empty() ? -1 : 0; i >= 0; i = at(i).next) visit(at(i).symbol);
  }

 private:
  struct Link {
    Symbol symbol;
    int32_t previous, next;  // -1 at the ends
  };
  Link& at(int32_t i) { return links_[static_cast<size_t>(i)]; }
  const Link& at(int32_t i) const { return links_[static_cast<size_t>(i)]; }

  void consider(const Rules& rules, int32_t left) {
    if (left < 0 || at(left).next < 0) return;
    const uint32_t rank = rules.rank(at(left).symbol, at(at(left).next).symbol);
    if (rank == no_rank) return;
    queue_.push_back(static_cast<uint64_t>(rank) << 32 | static_cast<uint32_t>(left));
    std::push_heap(queue_.begin(), queue_.end(), std::greater<>());
  }

  // An entry of the queue may be of before another merge: then its pair has gone or has another rank.
  void merge_at(const Rules& rules, uint32_t rank, int32_t i) {
    Link& left = at(i);
    if (left.next < 0) return;
    Link& right = at(left.next);
    if (!rules.is(rank, left.symbol, right.symbol)) return;
    rules.join(rank, left.symbol, right.symbol);
    left.next = right.next;
    if (right.next >= 0) at(right.next).previous = i;
    right.next = -1;
    consider(rules, left.previous);
    consider(rules, i);
  }

  std::vector<Link> links_;
  std::vector<uint64_t> queue_;  // rank << 32 | index of the left symbol; a heap, least first
};

}  // namespace sluice::engine
