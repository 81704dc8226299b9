// Tokenizers: text to token ids and back.
//
// make_tokenizer() chooses the implementation by the `model` of the config: "gpt2" is byte-level BPE
// (byte_bpe.h), "llama" SentencePiece BPE (spm.h). A Tokenizer copies what it needs of the config, is immutable
// afterwards, and may be used from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/vocab.h"
#include "sluice/status.h"

namespace sluice::engine {

// What a model file says about its tokenizer; the names are those of GGUF's tokenizer.ggml.* keys. The
// views are needed only while make_tokenizer() runs.
struct TokenizerConfig {
  std::string_view model;                    // "gpt2", "llama"
  std::string_view pre;                      // how text is cut into words; empty means "default"
  std::span<const std::string_view> tokens;  // by id
  std::span<const int32_t> token_types;      // by id, GGUF's numbers; empty: all normal
  std::span<const float> scores;             // by id; empty where the model has none
  std::span<const std::string_view> merges;  // "left right", best first
  SpecialIds ids;                            // -1 for what the file does not name
  std::optional<bool> add_bos, add_eos;      // missing: what `pre` implies
  std::optional<bool> add_space_prefix;      // SentencePiece only
};

struct EncodeOptions {
  bool add_special = false;    // BOS before and EOS behind, where the model asks for them
  bool parse_special = false;  // read "<|im_end|>" and the like as the token, not as text
};

struct Encoded {
  std::vector<TokenId> tokens;
  // Bytes of the text that the vocabulary has no token for and that are therefore not in `tokens`.
  // SmolLM2, for one, lacks six control characters.
  uint64_t dropped_bytes = 0;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // `text` may hold any bytes, NUL and ill-formed UTF-8 too. Tokens of type user_defined are recognized
  // always, control tokens only with parse_special; longest first. Time grows as n log n.
  // A text of 1 GiB or more is invalid_argument.
  virtual Result<Encoded> encode(std::string_view text, const EncodeOptions& options = {}) const = 0;

  // The bytes of a token, of any type; a single one may be part of a character. id < vocab().size().
  std::string_view token_bytes(TokenId id) const { return vocab().bytes(id); }

  // The bytes of tokens one behind the other; control tokens are left out unless render_special. An id
  // outside the vocabulary is invalid_argument.
  virtual Result<std::string> decode(std::span<const TokenId> tokens, bool render_special = false) const;

  virtual const Vocab& vocab() const = 0;

  // Bytes of memory held.
  virtual uint64_t memory_bytes() const = 0;
};

// corrupt: the tables contradict themselves (empty, duplicate or oversized tokens, merges of unknown
// tokens, ids out of range). unsupported: a `model` or `pre` that is not implemented, named.
Result<std::unique_ptr<Tokenizer>> make_tokenizer(const TokenizerConfig& config);

}  // namespace sluice::engine
