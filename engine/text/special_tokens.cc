#include "engine/text/special_tokens.h"

#include <algorithm>

namespace sluice::engine {

SpecialTokens::SpecialTokens(const Vocab& vocab) {
  for (TokenId id = 0; id < static_cast<TokenId>(vocab.size()); ++id) {
    if (!vocab.is_control(id) && vocab.type(id) != TokenType::user_defined) continue;
    if (vocab.bytes(id).empty()) continue;
    ids_.push_back(id);
    first_bytes_.set(static_cast<uint8_t>(vocab.bytes(id)[0]));
  }
  std::sort(ids_.begin(), ids_.end(), [&](TokenId a, TokenId b) {
    const std::string_view left = vocab.bytes(a), right = vocab.bytes(b);
    return left.size() != right.size() ? left.size() > right.size() : left < right;
  });
  for (uint32_t i = 0; i < ids_.size(); ++i) {
    const auto bytes = static_cast<uint32_t>(vocab.bytes(ids_[i]).size());
    if (groups_.empty() || groups_.back().bytes != bytes) groups_.push_back({bytes, i, 0});
    ++groups_.back().count;
  }
}

TokenId SpecialTokens::find_in(const Vocab& vocab, const Group& group, std::string_view text) const {
  const auto begin = ids_.begin() + group.first, end = begin + group.count;
  const auto at =
      std::lower_bound(begin, end, text, [&](TokenId id, std::string_view t) { return vocab.bytes(id) < t; });
  return at != end && vocab.bytes(*at) == text ? *at : no_token;
}

std::vector<SpecialTokens::Match> SpecialTokens::find(const Vocab& vocab, std::string_view text, bool control) const {
  std::vector<size_t> places;
  for (size_t at = 0; at < text.size(); ++at) {
    if (first_bytes_.test(static_cast<uint8_t>(text[at]))) places.push_back(at);
  }
  if (places.empty()) return {};
  std::vector<bool> taken(text.size());
  std::vector<Match> matches;
  for (const Group& group : groups_) {
    for (const size_t at : places) {
      if (at + group.bytes > text.size()) break;
      if (taken[at] || taken[at + group.bytes - 1]) continue;
      const TokenId id = find_in(vocab, group, text.substr(at, group.bytes));
      if (id == no_token || (!control && vocab.is_control(id))) continue;
      matches.push_back({at, group.bytes, id});
      std::fill_n(taken.begin() + static_cast<std::ptrdiff_t>(at), group.bytes, true);
    }
  }
  std::sort(matches.begin(), matches.end(), [](const Match& a, const Match& b) { return a.begin < b.begin; });
  return matches;
}

uint64_t SpecialTokens::memory_bytes() const {
  return sizeof(*this) + ids_.capacity() * sizeof(TokenId) + groups_.capacity() * sizeof(Group);
}

}  // namespace sluice::engine
