// Byte-level BPE, the "gpt2" tokenizer model: words by a pre-tokenizer, bytes as letters, merges by rank.
//
// Every byte sequence can be encoded as far as the vocabulary has a token for each byte. Ill-formed UTF-8
// goes in byte by byte (llama.cpp puts U+FFFD in its place).
#pragma once

#include <array>
#include <memory>

#include "engine/text/bpe_merges.h"
#include "engine/text/framing.h"
#include "engine/text/pretokenizer.h"
#include "engine/text/tokenizer.h"

namespace sluice::engine {

class ByteBpeTokenizer final : public Tokenizer {
 public:
  static Result<std::unique_ptr<Tokenizer>> make(const TokenizerConfig& config);

  Result<Encoded> encode(std::string_view text, const EncodeOptions& options) const override;
  const Vocab& vocab() const override { return vocab_; }
  uint64_t memory_bytes() const override;

 private:
  class Words;
  ByteBpeTokenizer(Vocab vocab, Pretokenizer pretokenizer, Framing framing);

  Vocab vocab_;
  Pretokenizer pretokenizer_;
  Framing framing_;
  BpeMerges merges_;
  std::array<TokenId, 256> byte_tokens_;
};

}  // namespace sluice::engine
