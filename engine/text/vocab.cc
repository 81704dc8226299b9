#include "engine/text/vocab.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "engine/text/tokenizer.h"

namespace sluice::engine {
namespace {

constexpr size_t max_tokens = 1 << 24;
constexpr size_t max_token_bytes = 1 << 16;
constexpr uint64_t max_arena_bytes = uint64_t{1} << 30;

// Names of end-of-turn tokens, in the order in which llama.cpp (llama-vocab.cpp) would take them for eot,
// then those that only end generation.
constexpr std::array<std::string_view, 10> eot_names = {
    "<|eot_id|>",      "<|im_end|>", "<|end|>", "<end_of_turn>",         "<|endoftext|>",
    "<|end_of_text|>", "<EOT>",      "_<EOT>",  "<｜end▁of▁sentence｜>", "<end_of_utterance>"};
constexpr std::array<std::string_view, 21> end_names = {
    "<|return|>",    "<|call|>",    "<|eom_id|>", "<eos>",      "<turn|>",      "[EOT]",     "[EOS]",
    "</s>",          "<|fim_pad|>", "<fim-pad>",  "<fim_pad>",  "<PAD>",        "[PAD]",     "<|fim_repo|>",
    "<|repo_name|>", "<fim-repo>",  "<REPO>",     "<reponame>", "<|file_sep|>", "<|calls|>", "<|flush|>"};

Result<TokenId> checked_id(int64_t id, std::string_view role, uint32_t n_tokens) {
  if (id == no_token) return no_token;
  if (id >= 0 && id < n_tokens) return static_cast<TokenId>(id);
  return error(Code::corrupt, "tokenizer: {} token id {} is outside the vocabulary of {} tokens", role, id, n_tokens);
}

}  // namespace

Result<Vocab> Vocab::make(const TokenizerConfig& config, Decoder raw_bytes) {
  Vocab vocab;
  if (config.tokens.empty()) return error(Code::corrupt, "tokenizer.ggml.tokens: the vocabulary is empty");
  if (config.tokens.size() > max_tokens) {
    return error(Code::corrupt, "tokenizer.ggml.tokens: {} tokens are more than the {} that can be real",
                 config.tokens.size(), max_tokens);
  }
  for (const auto& [n, key] :
       {std::pair(config.token_types.size(), "token_type"), std::pair(config.scores.size(), "scores")}) {
    if (n != 0 && n != config.tokens.size()) {
      return error(Code::corrupt, "tokenizer.ggml.{} has {} entries for {} tokens", key, n, config.tokens.size());
    }
  }
  vocab.types_.assign(config.tokens.size(), TokenType::normal);
  SLUICE_RETURN_IF_ERROR(vocab.copy_types(config.token_types));
  SLUICE_RETURN_IF_ERROR(vocab.copy_tokens(config, raw_bytes));
  SLUICE_RETURN_IF_ERROR(vocab.copy_ids(config.ids));
  vocab.find_end_tokens();
  return vocab;
}

Status Vocab::copy_types(std::span<const int32_t> types) {
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] < 0 || types[i] > static_cast<int>(TokenType::byte)) {
      return error(Code::corrupt, "tokenizer.ggml.token_type[{}] is {}, not a type (0 to 6)", i, types[i]);
    }
    types_[i] = types[i] == 0 ? TokenType::normal : static_cast<TokenType>(types[i]);
  }
  return {};
}

Status Vocab::copy_tokens(const TokenizerConfig& config, Decoder raw_bytes) {
  uint64_t total = 0;
  for (size_t i = 0; i < config.tokens.size(); ++i) {
    const size_t n = config.tokens[i].size();
    total += n;
    if (n <= max_token_bytes && total <= max_arena_bytes) continue;
    return error(Code::corrupt, "tokenizer.ggml.tokens[{}]: a token of {} bytes ({} so far) is absurd", i, n, total);
  }
  arena_.reserve(total);
  offsets_.reserve(config.tokens.size() + 1);
  by_bytes_.reset(config.tokens.size());
  offsets_.push_back(0);
  std::string decoded;
  for (size_t i = 0; i < config.tokens.size(); ++i) {
    const std::string_view text = config.tokens[i];
    const auto id = static_cast<TokenId>(i);
    decoded.clear();
    const bool found = raw_bytes(types_[i], text, decoded);
    arena_ += decoded;
    offsets_.push_back(static_cast<uint32_t>(arena_.size()));
    if (text.empty() || !found) continue;
    const auto same = [&](uint32_t other) { return bytes(static_cast<TokenId>(other)) == bytes(id); };
    if (by_bytes_.add(hash_bytes(bytes(id)), static_cast<uint32_t>(i), same) == TokenMap::Added::too_many_collisions) {
      return error(Code::corrupt, "tokenizer.ggml.tokens[{}]: the vocabulary is made to collide", i);
    }
  }
  arena_.shrink_to_fit();
  return {};
}

Status Vocab::copy_ids(const SpecialIds& ids) {
  SLUICE_ASSIGN_OR_RETURN(bos_, checked_id(ids.bos, "bos", size()));
  SLUICE_ASSIGN_OR_RETURN(eos_, checked_id(ids.eos, "eos", size()));
  SLUICE_ASSIGN_OR_RETURN(eot_, checked_id(ids.eot, "eot", size()));
  SLUICE_ASSIGN_OR_RETURN(unknown_, checked_id(ids.unknown, "unknown", size()));
  SLUICE_ASSIGN_OR_RETURN(padding_, checked_id(ids.padding, "padding", size()));
  return {};
}

void Vocab::find_end_tokens() {
  const auto is_special = [&](TokenId id) { return is_control(id) || type(id) == TokenType::user_defined; };
  std::vector<TokenId> named(eot_names.size(), no_token);
  for (TokenId id = 0; id < static_cast<TokenId>(size()); ++id) {
    if (!is_special(id)) continue;
    const auto at = std::find(eot_names.begin(), eot_names.end(), bytes(id));
    if (at != eot_names.end()) named[static_cast<size_t>(at - eot_names.begin())] = id;
    if (at != eot_names.end() || std::find(end_names.begin(), end_names.end(), bytes(id)) != end_names.end()) {
      end_tokens_.push_back(id);
    }
  }
  for (const TokenId id : named) {
    if (eot_ == no_token) eot_ = id;
  }
  for (const TokenId id : {eos_, eot_}) {
    if (id != no_token) end_tokens_.push_back(id);
  }
  std::sort(end_tokens_.begin(), end_tokens_.end());
  end_tokens_.erase(std::unique(end_tokens_.begin(), end_tokens_.end()), end_tokens_.end());
}

TokenId Vocab::find(std::string_view wanted) const {
  const uint32_t id =
      by_bytes_.find(hash_bytes(wanted), [&](uint32_t v) { return bytes(static_cast<TokenId>(v)) == wanted; });
  return id == TokenMap::none ? no_token : static_cast<TokenId>(id);
}

bool Vocab::ends_generation(TokenId id) const { return std::binary_search(end_tokens_.begin(), end_tokens_.end(), id); }

uint64_t Vocab::memory_bytes() const {
  return sizeof(*this) + arena_.capacity() + offsets_.capacity() * sizeof(uint32_t) + types_.capacity() +
         end_tokens_.capacity() * sizeof(TokenId) + by_bytes_.memory_bytes();
}

}  // namespace sluice::engine
