// The table of pre-tokenizers: names in tokenizer.ggml.pre and their expressions.
#pragma once

#include <span>
#include <string_view>

namespace sluice::engine {

struct PretokenizerRule {
  std::span<const std::string_view> names;
  std::span<const std::string_view> patterns;
  bool ignore_merges;
  bool add_bos;
};

std::span<const PretokenizerRule> pretokenizer_rules();

}  // namespace sluice::engine
