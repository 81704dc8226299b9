#include "engine/text/framing.h"

#include "core/error.h"

namespace sluice::engine {
namespace {

constexpr uint64_t max_text_bytes = uint64_t{1} << 30;

}  // namespace

Result<Framing> Framing::make(const TokenizerConfig& config, const Vocab& vocab, bool bos) {
  Framing made(vocab);
  // As llama.cpp: what a kind of tokenizer implies counts only where the model has the token.
  made.add_bos_ = config.add_bos.value_or(bos && vocab.bos() != no_token);
  made.add_eos_ = config.add_eos.value_or(false);
  if (made.add_bos_ && vocab.bos() == no_token) {
    return error(Code::corrupt, "tokenizer.ggml.add_bos_token is true, but tokenizer.ggml.bos_token_id is missing");
  }
  if (made.add_eos_ && vocab.eos() == no_token) {
    return error(Code::corrupt, "tokenizer.ggml.add_eos_token is true, but tokenizer.ggml.eos_token_id is missing");
  }
  return made;
}

Result<Encoded> Framing::encode(const Vocab& vocab, std::string_view text, const EncodeOptions& options,
                                const Plain& plain) const {
  if (text.size() >= max_text_bytes) {
    return error(Code::invalid_argument, "a text of {} bytes is too long to tokenize at once (at most 1 GiB)",
                 text.size());
  }
  Encoded out;
  if (options.add_special && add_bos_) out.tokens.push_back(vocab.bos());
  size_t at = 0;
  for (const SpecialTokens::Match& match : special_.find(vocab, text, options.parse_special)) {
    if (match.begin > at) SLUICE_RETURN_IF_ERROR(plain(text.substr(at, match.begin - at), out));
    out.tokens.push_back(match.id);
    at = match.begin + match.bytes;
  }
  if (at < text.size()) SLUICE_RETURN_IF_ERROR(plain(text.substr(at), out));
  if (options.add_special && add_eos_) out.tokens.push_back(vocab.eos());
  return out;
}

}  // namespace sluice::engine
