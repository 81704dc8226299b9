// SpecialTokens: finds tokens that are written out in a text, "<|im_end|>" and the like.
//
// Longer tokens win over shorter ones wherever they stand, and among places of the same token the first
// one wins, as in llama.cpp and Hugging Face's tokenizers. Immutable once made; views into the Vocab.
#pragma once

#include <bitset>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/text/vocab.h"

namespace sluice::engine {

class SpecialTokens {
 public:
  explicit SpecialTokens(const Vocab& vocab);

  struct Match {
    size_t begin;
    uint32_t bytes;
    TokenId id;
  };
  // In order of place, not overlapping. user_defined tokens always; control tokens only if `control`.
  std::vector<Match> find(const Vocab& vocab, std::string_view text, bool control) const;

  uint64_t memory_bytes() const;

 private:
  struct Group {  // tokens of one length, sorted by their bytes
    uint32_t bytes, first, count;
  };
  TokenId find_in(const Vocab& vocab, const Group& group, std::string_view text) const;

  std::vector<TokenId> ids_;
  std::vector<Group> groups_;  // longest first
  std::bitset<256> first_bytes_;
};

}  // namespace sluice::engine
