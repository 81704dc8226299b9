#include "engine/text/bpe_merges.h"

#include <algorithm>
#include <string>

#include "core/error.h"

namespace sluice::engine {
namespace {

constexpr size_t max_merges = 1 << 25;
constexpr TokenId absorbed = -2;  // a symbol that another took in; matches no merge

// Merges come from a file: shown shortened, with what is not printable replaced.
std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text.substr(0, 48)) out += static_cast<uint8_t>(c) < 0x20 || c == 0x7F ? '?' : c;
  return out + (text.size() > 48 ? "...\"" : "\"");
}

}  // namespace

Result<BpeMerges> BpeMerges::make(std::span<const std::string_view> merges,
                                  const std::function<TokenId(std::string_view)>& find) {
  if (merges.size() > max_merges)
    return error(Code::corrupt, "tokenizer.ggml.merges: {} merges are absurd", merges.size());
  BpeMerges made;
  made.merges_.reserve(merges.size());
  made.by_pair_.reset(merges.size());
  std::string both;
  for (size_t i = 0; i < merges.size(); ++i) {
    const std::string_view line = merges[i];
    const size_t space = line.find(' ', 1);
    if (space == std::string_view::npos || space + 1 == line.size()) {
      return error(Code::corrupt, "tokenizer.ggml.merges[{}]: {} is not a pair of tokens", i, quoted(line));
    }
    both.assign(line.substr(0, space)).append(line.substr(space + 1));
    const Merge merge{find(line.substr(0, space)), find(line.substr(space + 1)), find(both)};
    if (merge.left < 0 || merge.right < 0 || merge.merged < 0) {
      return error(Code::corrupt, "tokenizer.ggml.merges[{}]: {} names a token that is not in the vocabulary", i,
                   quoted(line));
    }
    made.merges_.push_back(merge);
    const auto same = [&](uint32_t r) {
      return made.merges_[r].left == merge.left && made.merges_[r].right == merge.right;
    };
    const uint64_t hash = hash_pair(static_cast<uint32_t>(merge.left), static_cast<uint32_t>(merge.right));
    if (made.by_pair_.add(hash, static_cast<uint32_t>(i), same) == TokenMap::Added::too_many_collisions) {
      return error(Code::corrupt, "tokenizer.ggml.merges[{}]: the merges are made to collide", i);
    }
  }
  return made;
}

void BpeWord::push(TokenId id) {
  const auto index = static_cast<int32_t>(symbols_.size());
  if (index > 0) symbols_.back().next = index;
  symbols_.push_back({id, index - 1, -1});
}

void BpeWord::consider(int32_t left) {
  if (left < 0) return;
  const Symbol& symbol = symbols_[static_cast<size_t>(left)];
  if (symbol.next < 0) return;
  const uint32_t rank = merges_.rank(symbol.id, symbols_[static_cast<size_t>(symbol.next)].id);
  if (rank == BpeMerges::no_rank) return;
  queue_.push_back(static_cast<uint64_t>(rank) << 32 | static_cast<uint32_t>(left));
  std::push_heap(queue_.begin(), queue_.end(), std::greater<>());
}

uint64_t BpeWord::merge(std::vector<TokenId>& out) {
  queue_.clear();
  for (size_t i = 0; i < symbols_.size(); ++i) consider(static_cast<int32_t>(i));
  while (!queue_.empty()) {
    std::pop_heap(queue_.begin(), queue_.end(), std::greater<>());
    const auto rank = static_cast<uint32_t>(queue_.back() >> 32);
    const auto left = static_cast<int32_t>(queue_.back() & UINT32_MAX);
    queue_.pop_back();
    Symbol& symbol = symbols_[static_cast<size_t>(left)];
    const BpeMerges::Merge& merge = merges_[rank];
    if (symbol.id != merge.left || symbol.next < 0) continue;  // an entry of before another merge
    Symbol& right = symbols_[static_cast<size_t>(symbol.next)];
    if (right.id != merge.right) continue;
    symbol.id = merge.merged;
    symbol.next = right.next;
    right.id = absorbed;
    if (symbol.next >= 0) symbols_[static_cast<size_t>(symbol.next)].previous = left;
    consider(symbol.previous);
    consider(left);
  }
  uint64_t missing = 0;
  for (int32_t i = symbols_.empty() ? -1 : 0; i >= 0; i = symbols_[static_cast<size_t>(i)].next) {
    const TokenId id = symbols_[static_cast<size_t>(i)].id;
    if (id >= 0) out.push_back(id);
    else ++missing;
  }
  return missing;
}

}  // namespace sluice::engine
