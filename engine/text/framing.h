// Framing: what every tokenizer does around plain text: BOS before it, EOS behind it, and the tokens that
// are written out in it. Immutable once made.
#pragma once

#include <functional>

#include "engine/text/special_tokens.h"
#include "engine/text/tokenizer.h"

namespace sluice::engine {

class Framing {
 public:
  // corrupt: the file asks for a BOS or EOS that it does not name. `bos`: whether BOS is added where the
  // file does not say.
  static Result<Framing> make(const TokenizerConfig& config, const Vocab& vocab, bool bos);

  // `plain` appends the tokens of a piece of text without special tokens, never an empty one.
  using Plain = std::function<Status(std::string_view text, Encoded& out)>;
  Result<Encoded> encode(const Vocab& vocab, std::string_view text, const EncodeOptions& options,
                         const Plain& plain) const;

  uint64_t memory_bytes() const { return special_.memory_bytes(); }

 private:
  explicit Framing(const Vocab& vocab) : special_(vocab) {}

  SpecialTokens special_;
  bool add_bos_ = false, add_eos_ = false;
};

}  // namespace sluice::engine
