#include "engine/text/bpe_merges.h"

#include <string>

#include "core/error.h"

namespace sluice::engine {
namespace {

constexpr size_t max_merges = 1 << 25;

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

uint64_t BpeWord::merge(std::vector<TokenId>& out) {
  chain_.merge(rules_);
  uint64_t missing = 0;
  chain_.each([&](TokenId id) {
    if (id >= 0) out.push_back(id);
    else ++missing;
  });
  return missing;
}

}  // namespace sluice::engine
