// Byte-pair merges: the table of a model, and merging a word with it.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/text/merge_chain.h"
#include "engine/text/token_map.h"
#include "sluice/status.h"

namespace sluice::engine {

// Pairs of tokens by rank. Immutable once made.
class BpeMerges {
 public:
  struct Merge {
    TokenId left, right, merged;
  };

  // `merges` are "left right" lines, best first; `find` gives the id of a token by its text in the file.
  // A pair that is listed twice keeps its first rank.
  static Result<BpeMerges> make(std::span<const std::string_view> merges,
                                const std::function<TokenId(std::string_view)>& find);

  uint32_t rank(TokenId left, TokenId right) const {
    return by_pair_.find(hash_pair(static_cast<uint32_t>(left), static_cast<uint32_t>(right)),
                         [&](uint32_t r) { return merges_[r].left == left && merges_[r].right == right; });
  }
  const Merge& operator[](uint32_t rank) const { return merges_[rank]; }
  size_t size() const { return merges_.size(); }
  uint64_t memory_bytes() const { return merges_.capacity() * sizeof(Merge) + by_pair_.memory_bytes(); }

 private:
  std::vector<Merge> merges_;
  TokenMap by_pair_;
};

// Merges words; keeps its memory from word to word, 20 to 30 bytes for each byte of the longest.
// One thread at a time.
class BpeWord {
 public:
  explicit BpeWord(const BpeMerges& merges) : rules_{merges} {}

  // Begins a word.
  void clear() { chain_.clear(); }
  // Adds its next token, no_token for a byte without one.
  void push(TokenId id) { chain_.push(id); }
  // Applies the best merge, the leftmost among equals, until none is left; then appends the tokens to
  // `out`. Returns the number of no_token symbols, which are left out. O(n log n).
  uint64_t merge(std::vector<TokenId>& out);

 private:
  struct Rules {
    using Symbol = TokenId;
    const BpeMerges& merges;
    uint32_t rank(TokenId left, TokenId right) const { return merges.rank(left, right); }
    bool is(uint32_t rank, TokenId left, TokenId right) const {
      return merges[rank].left == left && merges[rank].right == right;
    }
    void join(uint32_t rank, TokenId& left, TokenId) const { left = merges[rank].merged; }
  };

  Rules rules_;
  MergeChain<Rules> chain_;
};

}  // namespace sluice::engine
