// Vocab: the tokens of a model, their bytes, types and roles, in compact tables.
//
// Immutable once made. Views point into it and live as long.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/token_map.h"
#include "sluice/status.h"

namespace sluice::engine {

struct TokenizerConfig;

inline constexpr TokenId no_token = -1;

// The numbers of GGUF's tokenizer.ggml.token_type.
enum class TokenType : uint8_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

// Tokens with a role; -1 where the model has none.
struct SpecialIds {
  int64_t bos = -1, eos = -1, eot = -1, unknown = -1, padding = -1;
};

class Vocab {
 public:
  // Checks and copies the tables of the config. `raw_bytes` turns the text of a token, as the file holds
  // it, into its bytes (`bytes` is empty before), and says whether the token can come out of merging.
  using Decoder = bool (*)(TokenType type, std::string_view text, std::string& bytes);
  static Result<Vocab> make(const TokenizerConfig& config, Decoder raw_bytes);

  uint32_t size() const { return static_cast<uint32_t>(types_.size()); }
  std::string_view bytes(TokenId id) const {
    const auto i = static_cast<size_t>(id);
    return std::string_view(arena_).substr(offsets_[i], offsets_[i + 1] - offsets_[i]);
  }
  TokenType type(TokenId id) const { return types_[static_cast<size_t>(id)]; }
  bool is_control(TokenId id) const { return type(id) == TokenType::control || type(id) == TokenType::unknown; }

  // The token that can come out of merging whose bytes these are, no_token if there is none.
  TokenId find(std::string_view bytes) const;

  // Roles; no_token where the model has none. eot is found by its usual names if the file does not say.
  TokenId bos() const { return bos_; }
  TokenId eos() const { return eos_; }
  TokenId eot() const { return eot_; }
  TokenId unknown() const { return unknown_; }
  TokenId padding() const { return padding_; }

  // Does this token end an answer? eos, eot, and the tokens that are known to by name.
  bool ends_generation(TokenId id) const;
  std::span<const TokenId> end_tokens() const { return end_tokens_; }

  uint64_t memory_bytes() const;

 private:
  Status copy_tokens(const TokenizerConfig& config, Decoder raw_bytes);
  Status copy_types(std::span<const int32_t> types);
  Status copy_ids(const SpecialIds& ids);
  void find_end_tokens();

  std::string arena_;              // bytes of all tokens
  std::vector<uint32_t> offsets_;  // size() + 1
  std::vector<TokenType> types_;
  TokenMap by_bytes_;
  std::vector<TokenId> end_tokens_;  // sorted
  TokenId bos_ = no_token, eos_ = no_token, eot_ = no_token, unknown_ = no_token, padding_ = no_token;
};

}  // namespace sluice::engine
