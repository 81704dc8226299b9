#include "engine/text/byte_bpe.h"

#include "core/error.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/utf8.h"

namespace sluice::engine {
namespace {

constexpr uint64_t max_text_bytes = uint64_t{1} << 30;

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
  Words(const ByteBpeTokenizer& tokenizer, Encoded& out) : tokenizer_(tokenizer), word_(tokenizer.merges_), out_(out) {}

  void word(std::string_view bytes) override {
    if (tokenizer_.pretokenizer_.ignore_merges()) {
      const TokenId whole = tokenizer_.vocab_.find(bytes);
      if (whole != no_token) return out_.tokens.push_back(whole);
    }
    word_.clear();
    for (const char byte : bytes) word_.push(tokenizer_.byte_tokens_[static_cast<uint8_t>(byte)]);
    out_.dropped_bytes += word_.merge(out_.tokens);
  }

 private:
  const ByteBpeTokenizer& tokenizer_;
  BpeWord word_;
  Encoded& out_;
};

ByteBpeTokenizer::ByteBpeTokenizer(Vocab vocab, Pretokenizer pretokenizer)
    : vocab_(std::move(vocab)), pretokenizer_(std::move(pretokenizer)), special_(vocab_) {}

Result<std::unique_ptr<Tokenizer>> ByteBpeTokenizer::make(const TokenizerConfig& config) {
  SLUICE_ASSIGN_OR_RETURN(Pretokenizer pretokenizer, Pretokenizer::make(config.pre));
  SLUICE_ASSIGN_OR_RETURN(Vocab vocab, Vocab::make(config, decode_letters));
  TokenIndex index;
  SLUICE_RETURN_IF_ERROR(index.fill(config.tokens));
  std::unique_ptr<ByteBpeTokenizer> made(new ByteBpeTokenizer(std::move(vocab), std::move(pretokenizer)));
  SLUICE_ASSIGN_OR_RETURN(made->merges_,
                          BpeMerges::make(config.merges, [&](std::string_view t) { return index.find(t); }));
  for (uint32_t byte = 0; byte < 256; ++byte) {
    std::string letter;
    append_utf8(letter, byte_to_letter(static_cast<uint8_t>(byte)));
    made->byte_tokens_[byte] = index.find(letter);
  }
  SLUICE_RETURN_IF_ERROR(made->set_added(config));
  return std::unique_ptr<Tokenizer>(std::move(made));
}

Status ByteBpeTokenizer::set_added(const TokenizerConfig& config) {
  // As llama.cpp: what a pre-tokenizer implies counts only where the model has the token.
  add_bos_ = config.add_bos.value_or(pretokenizer_.add_bos() && vocab_.bos() != no_token);
  add_eos_ = config.add_eos.value_or(false);
  if (add_bos_ && vocab_.bos() == no_token) {
    return error(Code::corrupt, "tokenizer.ggml.add_bos_token is true, but tokenizer.ggml.bos_token_id is missing");
  }
  if (add_eos_ && vocab_.eos() == no_token) {
    return error(Code::corrupt, "tokenizer.ggml.add_eos_token is true, but tokenizer.ggml.eos_token_id is missing");
  }
  return {};
}

Result<Encoded> ByteBpeTokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  if (text.size() >= max_text_bytes) {
    return error(Code::invalid_argument, "a text of {} bytes is too long to tokenize at once (at most 1 GiB)",
                 text.size());
  }
  Encoded out;
  Words words(*this, out);
  if (options.add_special && add_bos_) out.tokens.push_back(vocab_.bos());
  size_t at = 0;
  for (const SpecialTokens::Match& match : special_.find(vocab_, text, options.parse_special)) {
    SLUICE_RETURN_IF_ERROR(pretokenizer_.split(text.substr(at, match.begin - at), words));
    out.tokens.push_back(match.id);
    at = match.begin + match.bytes;
  }
  SLUICE_RETURN_IF_ERROR(pretokenizer_.split(text.substr(at), words));
  if (options.add_special && add_eos_) out.tokens.push_back(vocab_.eos());
  return out;
}

uint64_t ByteBpeTokenizer::memory_bytes() const {
  return sizeof(*this) - sizeof(vocab_) - sizeof(special_) - sizeof(pretokenizer_) + vocab_.memory_bytes() +
         special_.memory_bytes() + pretokenizer_.memory_bytes() + merges_.memory_bytes();
}

}  // namespace sluice::engine
