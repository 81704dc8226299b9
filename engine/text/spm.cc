#include "engine/text/spm.h"

#include <cmath>

#include "core/error.h"
#include "engine/text/merge_chain.h"
#include "engine/text/utf8.h"

namespace sluice::engine {
namespace {

constexpr std::string_view space = "\u2581";   // as files hold it
constexpr uint32_t max_piece_bytes = 1 << 12;  // a merge costs time in proportion

std::string with_spaces(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t next = std::min(text.find(space, at), text.size());
    out.append(text, at, next - at);
    if (next < text.size()) out += ' ';
    at = next + space.size();
  }
  return out;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// The byte of "<0xE2>", -1 of anything else.
int byte_of(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return -1;
  const int high = hex_digit(text[3]), low = hex_digit(text[4]);
  return high < 0 || low < 0 ? -1 : 16 * high + low;
}

bool decode_piece(TokenType type, std::string_view text, std::string& bytes) {
  if (type == TokenType::byte && byte_of(text) >= 0) {
    bytes = static_cast<char>(byte_of(text));
    return false;
  }
  const bool plain = type == TokenType::normal || type == TokenType::unused;
  bytes = plain ? with_spaces(text) : std::string(text);
  return text.find(' ') == std::string_view::npos && (plain || text.find(space) == std::string_view::npos);
}

// Numbers in the order of scores, the best first. score is finite.
uint32_t rank_of(float score) {
  const auto bits = __builtin_bit_cast(uint32_t, score + 0.0f);  // one zero
  const uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return ~ascending;
}

// As llama.cpp, where the file names none.
TokenizerConfig with_usual_ids(TokenizerConfig config) {
  if (config.tokens.size() < 3) return config;
  if (config.ids.unknown < 0) config.ids.unknown = 0;
  if (config.ids.bos < 0) config.ids.bos = 1;
  if (config.ids.eos < 0) config.ids.eos = 2;
  return config;
}

}  // namespace

// Symbols are pieces of the text.
class SpmTokenizer::Rules {
 public:
  struct Symbol {
    uint32_t begin, bytes;
  };
  Rules(const SpmTokenizer& tokenizer, std::string_view text) : tokenizer_(tokenizer), text_(text) {}

  TokenId token(const Symbol& s) const { return tokenizer_.vocab_.find(text_.substr(s.begin, s.bytes)); }

  uint32_t rank(const Symbol& left, const Symbol& right) const {
    if (left.bytes + right.bytes > tokenizer_.longest_) return no_rank;
    const TokenId id = token({left.begin, left.bytes + right.bytes});
    return id == no_token ? no_rank : tokenizer_.ranks_[static_cast<size_t>(id)];
  }
  bool is(uint32_t r, const Symbol& left, const Symbol& right) const { return rank(left, right) == r; }
  void join(uint32_t, Symbol& left, const Symbol& right) const { left.bytes += right.bytes; }

 private:
  const SpmTokenizer& tokenizer_;
  std::string_view text_;
};

// Turns texts into tokens.
class SpmTokenizer::Pieces {
 public:
  explicit Pieces(const SpmTokenizer& tokenizer) : tokenizer_(tokenizer) {}

  // `text` with spaces.
  void encode(std::string_view text, Encoded& out) {
    chain_.clear();
    for (uint32_t at = 0; at < text.size();) {
      const Utf8Char c = decode_utf8(text, at);
      const uint32_t bytes = c.valid ? c.bytes : 1;
      chain_.push({at, bytes});
      at += bytes;
    }
    const Rules rules(tokenizer_, text);
    chain_.merge(rules);
    chain_.each([&](const Rules::Symbol& s) {
      const TokenId id = rules.token(s);
      if (id != no_token) out.tokens.push_back(id);
      else push_bytes(text.substr(s.begin, s.bytes), out);
    });
  }

 private:
  void push_bytes(std::string_view bytes, Encoded& out) const {
    for (const char byte : bytes) {
      const TokenId id = tokenizer_.byte_tokens_[static_cast<uint8_t>(byte)];
      if (id != no_token) out.tokens.push_back(id);
      else ++out.dropped_bytes;
    }
  }

  const SpmTokenizer& tokenizer_;
  MergeChain<Rules> chain_;
};

SpmTokenizer::SpmTokenizer(Vocab vocab, Framing framing) : vocab_(std::move(vocab)), framing_(std::move(framing)) {}

Result<std::unique_ptr<Tokenizer>> SpmTokenizer::make(const TokenizerConfig& given) {
  const TokenizerConfig config = with_usual_ids(given);
  SLUICE_ASSIGN_OR_RETURN(Vocab vocab, Vocab::make(config, decode_piece));
  SLUICE_ASSIGN_OR_RETURN(Framing framing, Framing::make(config, vocab, true));
  std::unique_ptr<SpmTokenizer> made(new SpmTokenizer(std::move(vocab), std::move(framing)));
  SLUICE_RETURN_IF_ERROR(made->rank_tokens(config));
  made->find_bytes(config);
  made->add_space_prefix_ = config.add_space_prefix.value_or(true);
  return std::unique_ptr<Tokenizer>(std::move(made));
}

Status SpmTokenizer::rank_tokens(const TokenizerConfig& config) {
  ranks_.resize(vocab_.size(), rank_of(0));
  for (size_t i = 0; i < config.scores.size(); ++i) {
    if (!std::isfinite(config.scores[i]))
      return error(Code::corrupt, "tokenizer.ggml.scores[{}] is {}", i, config.scores[i]);
    ranks_[i] = rank_of(config.scores[i]);
  }
  for (TokenId id = 0; id < static_cast<TokenId>(vocab_.size()); ++id) {
    const auto bytes = static_cast<uint32_t>(vocab_.bytes(id).size());
    if (bytes > max_piece_bytes)
      return error(Code::corrupt, "tokenizer.ggml.tokens[{}]: a piece of {} bytes is absurd (at most {})", id, bytes,
                   max_piece_bytes);
    longest_ = std::max(longest_, bytes);
  }
  return {};
}

void SpmTokenizer::find_bytes(const TokenizerConfig& config) {
  byte_tokens_.fill(no_token);
  for (size_t i = 0; i < config.tokens.size(); ++i) {
    const int byte = byte_of(config.tokens[i]);
    if (byte >= 0) byte_tokens_[static_cast<size_t>(byte)] = static_cast<TokenId>(i);
  }
}

Result<Encoded> SpmTokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  Pieces pieces(*this);
  return framing_.encode(vocab_, text, options, [&](std::string_view plain, Encoded& out) {
    std::string spaced = with_spaces(plain);
    if (add_space_prefix_) spaced.insert(0, 1, ' ');
    pieces.encode(spaced, out);
    return Status();
  });
}

Result<std::string> SpmTokenizer::decode(std::span<const TokenId> tokens, bool render_special) const {
  SLUICE_ASSIGN_OR_RETURN(std::string text, Tokenizer::decode(tokens, render_special));
  if (!add_space_prefix_) return text;
  size_t at = 0;  // where the first token of text begins
  for (const TokenId id : tokens) {
    if (!vocab_.is_control(id)) break;
    if (render_special) at += vocab_.bytes(id).size();
  }
  if (at < text.size() && text[at] == ' ') text.erase(at, 1);
  return text;
}

uint64_t SpmTokenizer::memory_bytes() const {
  return sizeof(*this) - sizeof(vocab_) - sizeof(framing_) + vocab_.memory_bytes() + framing_.memory_bytes() +
         ranks_.capacity() * sizeof(uint32_t);
}

}  // namespace sluice::engine
