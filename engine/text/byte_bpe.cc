#include "engine/text/byte_bpe.h"

#include "core/error.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/utf8.h"

namespace sluice::engine {
namespace {

// Bytes of normal tokens; the others stand for themselves, and come out of merging where that is the same.
bool decode_token(TokenType type, std::string_view text, std::string& bytes) {
  const bool encoded = decode_letters(text, bytes);
  if (type == TokenType::normal && encoded) return true;
  const bool same = encoded && bytes == text;
  bytes = text;
  return same;
}

// Ids by the text in the file; lives only while a tokenizer is made.
class TokenIndex {
 public:
  Status fill(std::span<const std::string_view> tokens) {
    tokens_ = tokens;
    map_.reset(tokens.size());
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i].empty()) continue;  // stands for nothing and is never found
      uint32_t other = 0;
      const auto same = [&](uint32_t v) { return tokens_[other = v] == tokens[i]; };
      switch (map_.add(hash_bytes(tokens[i]), static_cast<uint32_t>(i), same)) {
        case TokenMap::Added::yes: break;
        case TokenMap::Added::duplicate:
          return error(Code::corrupt, "tokenizer.ggml.tokens[{}] is the same as tokens[{}]", i, other);
        case TokenMap::Added::too_many_collisions:
          return error(Code::corrupt, "tokenizer.ggml.tokens[{}]: the vocabulary is made to collide", i);
      }
    }
    return {};
  }

  TokenId find(std::string_view text) const {
    const uint32_t id = map_.find(hash_bytes(text), [&](uint32_t v) { return tokens_[v] == text; });
    return id == TokenMap::none ? no_token : static_cast<TokenId>(id);
  }

 private:
  std::span<const std::string_view> tokens_;
  TokenMap map_;
};

}  // namespace

// Turns words into tokens.
class ByteBpeTokenizer::Words final : public WordSink {
 public:
  explicit Words(const ByteBpeTokenizer& tokenizer) : tokenizer_(tokenizer), word_(tokenizer.merges_) {}

  // Where what follows goes.
  void to(Encoded& out) { out_ = &out; }

  void word(std::string_view bytes) override {
    if (tokenizer_.pretokenizer_.ignore_merges()) {
      const TokenId whole = tokenizer_.vocab_.find(bytes);
      if (whole != no_token) return out_->tokens.push_back(whole);
    }
    word_.clear();
    for (const char byte : bytes) word_.push(tokenizer_.byte_tokens_[static_cast<uint8_t>(byte)]);
    out_->dropped_bytes += word_.merge(out_->tokens);
  }

 private:
  const ByteBpeTokenizer& tokenizer_;
  BpeWord word_;
  Encoded* out_ = nullptr;
};

ByteBpeTokenizer::ByteBpeTokenizer(Vocab vocab, Pretokenizer pretokenizer, Framing framing)
    : vocab_(std::move(vocab)), pretokenizer_(std::move(pretokenizer)), framing_(std::move(framing)) {}

Result<std::unique_ptr<Tokenizer>> ByteBpeTokenizer::make(const TokenizerConfig& config) {
  SLUICE_ASSIGN_OR_RETURN(Pretokenizer pretokenizer, Pretokenizer::make(config.pre));
  SLUICE_ASSIGN_OR_RETURN(Vocab vocab, Vocab::make(config, decode_token));
  SLUICE_ASSIGN_OR_RETURN(Framing framing, Framing::make(config, vocab, pretokenizer.add_bos()));
  TokenIndex index;
  SLUICE_RETURN_IF_ERROR(index.fill(config.tokens));
  std::unique_ptr<ByteBpeTokenizer> made(
      new ByteBpeTokenizer(std::move(vocab), std::move(pretokenizer), std::move(framing)));
  SLUICE_ASSIGN_OR_RETURN(made->merges_,
                          BpeMerges::make(config.merges, [&](std::string_view t) { return index.find(t); }));
  for (uint32_t byte = 0; byte < 256; ++byte) {
    std::string letter;
    append_utf8(letter, byte_to_letter(static_cast<uint8_t>(byte)));
    made->byte_tokens_[byte] = index.find(letter);
  }
  return std::unique_ptr<Tokenizer>(std::move(made));
}

Result<Encoded> ByteBpeTokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  Words words(*this);
  return framing_.encode(vocab_, text, options, [&](std::string_view plain, Encoded& out) {
    words.to(out);
    return pretokenizer_.split(plain, words);
  });
}

uint64_t ByteBpeTokenizer::memory_bytes() const {
  return sizeof(*this) - sizeof(vocab_) - sizeof(framing_) - sizeof(pretokenizer_) + vocab_.memory_bytes() +
         framing_.memory_bytes() + pretokenizer_.memory_bytes() + merges_.memory_bytes();
}

}  // namespace sluice::engine
