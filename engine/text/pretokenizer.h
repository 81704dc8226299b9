// Pre-tokenizers: how text is cut into words before byte-pair encoding.
//
// A pre-tokenizer is a list of regular expressions. The first cuts the text into its matches and what
// lies between them; the next cuts each of those pieces, and so on. The expressions are those of
// llama.cpp (llama-vocab.cpp, by the name in tokenizer.ggml.pre), which take them from the models'
// tokenizer.json, written so that no expression backtracks more than a run of characters once.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "sluice/status.h"

namespace sluice::engine {

// Receives the words of a text, in order; their bytes together are the text.
class WordSink {
 public:
  virtual ~WordSink() = default;
  virtual void word(std::string_view bytes) = 0;
};

// Immutable once made; any thread may split with it.
class Pretokenizer {
 public:
  // unsupported names a `pre` that is not known; empty means "default".
  static Result<Pretokenizer> make(std::string_view pre);

  Pretokenizer(Pretokenizer&&) noexcept;
  Pretokenizer& operator=(Pretokenizer&&) noexcept;
  ~Pretokenizer();

  // A run of bytes that is no UTF-8 is a word of its own. Words of empty text: none.
  Status split(std::string_view text, WordSink& sink) const;

  // A word that is a token as it stands is that token, however merging would cut it.
  bool ignore_merges() const { return ignore_merges_; }
  // Whether the model begins with BOS where its file does not say.
  bool add_bos() const { return add_bos_; }

  uint64_t memory_bytes() const;

 private:
  class Pattern;
  class Splitter;
  Pretokenizer();

  std::vector<std::unique_ptr<Pattern>> patterns_;
  bool ignore_merges_ = false;
  bool add_bos_ = false;
};

}  // namespace sluice::engine
