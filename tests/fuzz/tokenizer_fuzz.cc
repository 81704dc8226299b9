// Tables of a tokenizer and a text for it, both from the input: lines of tokens, an empty line, lines of
// merges, an empty line, the text. The first byte chooses the pre-tokenizer and the options.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "engine/text/byte_alphabet.h"
#include "engine/text/tokenizer.h"

namespace {

using namespace sluice::engine;

constexpr std::array<std::string_view, 8> pres = {"default", "gpt-2",  "smollm", "llama-bpe",
                                                  "qwen2",   "tekken", "gpt-4o", "falcon"};

std::string_view line(std::string_view& rest) {
  const size_t end = std::min(rest.find('\n'), rest.size());
  const std::string_view text = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return text;
}

std::vector<std::string_view> lines(std::string_view& rest) {
  std::vector<std::string_view> all;
  while (!rest.empty()) {
    const std::string_view one = line(rest);
    if (one.empty()) break;
    all.push_back(one);
  }
  return all;
}

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const uint8_t choice = data[0];
  std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto tokens = lines(rest), merges = lines(rest);
  std::vector<int32_t> types;
  for (const std::string_view t : tokens) types.push_back(t.starts_with("<|") ? 3 : t.starts_with("<u") ? 4 : 1);
  TokenizerConfig config;
  config.model = "gpt2";
  config.pre = pres[choice % pres.size()];
  config.tokens = tokens;
  config.token_types = types;
  config.merges = merges;
  config.add_bos = (choice & 16) != 0;
  if (choice & 32) config.ids.bos = static_cast<int32_t>(size % 7);
  const auto tokenizer = make_tokenizer(config);
  if (!tokenizer.ok()) {
    require(!tokenizer.status().message().empty());
    return 0;
  }
  const auto encoded = (*tokenizer)->encode(rest, {(choice & 64) != 0, (choice & 128) != 0});
  if (!encoded.ok()) return 0;
  uint64_t bytes = 0;
  for (const TokenId id : encoded->tokens) {
    require(id >= 0 && static_cast<uint32_t>(id) < (*tokenizer)->vocab().size());
    bytes += (*tokenizer)->token_bytes(id).size();
  }
  // Without special tokens the pieces are the text, but for what was dropped.
  if ((choice & 0xC0) == 0) require(bytes + encoded->dropped_bytes == rest.size());
  require((*tokenizer)->decode(encoded->tokens, true).ok());
  return 0;
}
