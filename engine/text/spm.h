// SentencePiece BPE, the "llama" tokenizer model: characters, merged into the neighbouring pair whose token
// has the best score, the leftmost among equals; characters without a token become their bytes, "<0xE2>".
// (Kudo & Richardson 2018, arXiv:1808.06226)
//
// The file holds U+2581 for spaces; so both characters of a text are the same one, and come back as a
// space. Where the model asks for it, a space goes before each text that begins or follows a special token;
// decode() leaves out the one that begins the text. Ill-formed UTF-8 goes in byte by byte.
#pragma once

#include <array>
#include <memory>

#include "engine/text/framing.h"
#include "engine/text/tokenizer.h"

namespace sluice::engine {

class SpmTokenizer final : public Tokenizer {
 public:
  static Result<std::unique_ptr<Tokenizer>> make(const TokenizerConfig& config);

  Result<Encoded> encode(std::string_view text, const EncodeOptions& options) const override;
  Result<std::string> decode(std::span<const TokenId> tokens, bool render_special) const override;
  const Vocab& vocab() const override { return vocab_; }
  uint64_t memory_bytes() const override;

 private:
  class Rules;
  class Pieces;
  SpmTokenizer(Vocab vocab, Framing framing);
  Status rank_tokens(const TokenizerConfig& config);
  void find_bytes(const TokenizerConfig& config);

  Vocab vocab_;
  Framing framing_;
  std::vector<uint32_t> ranks_;  // by id: the order of scores, best first
  uint32_t longest_ = 0;         // bytes of a token that merging can make
  std::array<TokenId, 256> byte_tokens_;
  bool add_space_prefix_ = true;
};

}  // namespace sluice::engine
