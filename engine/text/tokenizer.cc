#include "engine/text/tokenizer.h"

#include "core/error.h"
#include "engine/text/byte_bpe.h"
#include "engine/text/spm.h"

namespace sluice::engine {

Result<std::string> Tokenizer::decode(std::span<const TokenId> tokens, bool render_special) const {
  const Vocab& v = vocab();
  std::string out;
  for (const TokenId id : tokens) {
    if (id < 0 || static_cast<uint32_t>(id) >= v.size()) {
      return error(Code::invalid_argument, "token {} is outside the vocabulary of {} tokens", id, v.size());
    }
    if (render_special || !v.is_control(id)) out += v.bytes(id);
  }
  return out;
}

Result<std::unique_ptr<Tokenizer>> make_tokenizer(const TokenizerConfig& config) {
  if (config.model == "gpt2") return ByteBpeTokenizer::make(config);
  if (config.model == "llama") return SpmTokenizer::make(config);
  return error(Code::unsupported, "tokenizer.ggml.model: the tokenizer \"{}\" is not implemented (gpt2, llama are)",
               config.model.substr(0, 64));
}

}  // namespace sluice::engine
