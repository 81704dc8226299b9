#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/text/pretokenizer.h"

#include <pcre2.h>

#include <algorithm>

#include "core/error.h"
#include "engine/text/pretokenizer_rules.h"
#include "engine/text/utf8.h"

namespace sluice::engine {
namespace {

// White space as Unicode defines it (White_Space=Yes), as a class's content. PCRE2's own \s also takes
// U+180E, which Unicode and llama.cpp do not.
constexpr std::string_view white_space =
    R"(\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

// Replaces \s and \S by explicit classes.
std::string expand_white_space(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c != '\\') {
      if (c == '[') in_class = true;
      if (c == ']') in_class = false;
      out += c;
      continue;
    }
    const char next = pattern[++i];
    if (next == 's' && in_class) {
      out += white_space;
    } else if (next == 's' || next == 'S') {
      out.append(next == 's' ? "[" : "[^").append(white_space).append("]");
    } else {
      out.append({c, next});
    }
  }
  return out;
}

std::string pcre2_message(int code) {
  PCRE2_UCHAR text[256];
  return pcre2_get_error_message(code, text, sizeof text) < 0 ? "unknown" : reinterpret_cast<const char*>(text);
}

template <auto free>
struct Free {
  template <class T>
  void operator()(T* p) const {
    free(p);
  }
};
using MatchData = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>>;

constexpr uint32_t heap_limit_kib = 16 * 1024;

}  // namespace

class Pretokenizer::Pattern {
 public:
  static Result<std::unique_ptr<Pattern>> make(std::string_view text) {
    const std::string expanded = expand_white_space(text);
    int code = 0;
    PCRE2_SIZE offset = 0;
    std::unique_ptr<Pattern> pattern(new Pattern);
    pattern->code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expanded.data()), expanded.size(),
                                       PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &code, &offset, nullptr));
    if (!pattern->code_) {
      return error(Code::internal, "pre-tokenizer expression {}: {} at {}", expanded, pcre2_message(code), offset);
    }
    pattern->use_jit_ = pcre2_jit_compile(pattern->code_.get(), PCRE2_JIT_COMPLETE) == 0;
    return pattern;
  }

  // Finds the first match in text[at..]; its end is > its begin. false: there is none.
  Result<bool> find(std::string_view text, size_t at, pcre2_match_data* data, pcre2_match_context* context,
                    std::pair<size_t, size_t>& match) const {
    const auto run = [&](uint32_t options) {
      return pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                         PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY | options, data, context);
    };
    int rc = run(use_jit_ ? 0 : PCRE2_NO_JIT);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) rc = run(PCRE2_NO_JIT);
    if (rc == PCRE2_ERROR_NOMATCH) return false;
    if (rc < 0) return error(Code::internal, "pre-tokenizer at byte {} of a word: {}", at, pcre2_message(rc));
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data);
    match = {ends[0], ends[1]};
    return true;
  }

  uint64_t memory_bytes() const {
    size_t code = 0, jit = 0;
    pcre2_pattern_info(code_.get(), PCRE2_INFO_SIZE, &code);
    pcre2_pattern_info(code_.get(), PCRE2_INFO_JITSIZE, &jit);
    return sizeof(*this) + code + jit;
  }

 private:
  Pattern() = default;
  std::unique_ptr<pcre2_code, Free<pcre2_code_free>> code_;
  bool use_jit_ = false;
};

// One split: the state of the matcher, shared by all patterns.
class Pretokenizer::Splitter {
 public:
  Splitter(const Pretokenizer& rules, size_t text_bytes, WordSink& sink)
      : rules_(rules),
        sink_(sink),
        data_(pcre2_match_data_create(1, nullptr)),
        context_(pcre2_match_context_create(nullptr)) {
    if (!context_) return;
    pcre2_set_match_limit(context_.get(),
                          static_cast<uint32_t>(std::min<uint64_t>(10'000'000 + 8 * text_bytes, UINT32_MAX)));
    pcre2_set_heap_limit(context_.get(), heap_limit_kib);
  }

  bool ready() const { return data_ && context_; }

  // Cuts well-formed text by the patterns from `level` on.
  Status cut(std::string_view text, size_t level) {
    if (text.empty()) return {};
    if (level == rules_.patterns_.size()) {
      sink_.word(text);
      return {};
    }
    std::pair<size_t, size_t> match;
    for (size_t at = 0; at < text.size(); at = match.second) {
      SLUICE_ASSIGN_OR_RETURN(const bool found,
                              rules_.patterns_[level]->find(text, at, data_.get(), context_.get(), match));
      if (!found) return cut(text.substr(at), level + 1);
      SLUICE_RETURN_IF_ERROR(cut(text.substr(at, match.first - at), level + 1));
      SLUICE_RETURN_IF_ERROR(cut(text.substr(match.first, match.second - match.first), level + 1));
    }
    return {};
  }

 private:
  const Pretokenizer& rules_;
  WordSink& sink_;
  MatchData data_;
  MatchContext context_;
};

Pretokenizer::Pretokenizer() = default;
Pretokenizer::Pretokenizer(Pretokenizer&&) noexcept = default;
Pretokenizer& Pretokenizer::operator=(Pretokenizer&&) noexcept = default;
Pretokenizer::~Pretokenizer() = default;

Result<Pretokenizer> Pretokenizer::make(std::string_view pre) {
  for (const PretokenizerRule& rule : pretokenizer_rules()) {
    if (std::find(rule.names.begin(), rule.names.end(), pre) == rule.names.end()) continue;
    Pretokenizer made;
    made.ignore_merges_ = rule.ignore_merges;
    made.add_bos_ = rule.add_bos;
    for (const std::string_view pattern : rule.patterns) {
      SLUICE_ASSIGN_OR_RETURN(auto compiled, Pattern::make(pattern));
      made.patterns_.push_back(std::move(compiled));
    }
    return made;
  }
  return error(Code::unsupported, "tokenizer.ggml.pre: the pre-tokenizer \"{}\" is not implemented", pre.substr(0, 64));
}

Status Pretokenizer::split(std::string_view text, WordSink& sink) const {
  Splitter splitter(*this, text.size(), sink);
  if (!splitter.ready()) return error(Code::over_budget, "pre-tokenizer: no memory for the matcher");
  while (!text.empty()) {
    const size_t valid = valid_utf8_prefix(text);
    SLUICE_RETURN_IF_ERROR(splitter.cut(text.substr(0, valid), 0));
    text.remove_prefix(valid);
    size_t broken = 0;
    while (broken < text.size()) {
      const Utf8Char c = decode_utf8(text, broken);
      if (c.valid) break;
      broken += c.bytes;
    }
    if (broken > 0) sink.word(text.substr(0, broken));
    text.remove_prefix(broken);
  }
  return {};
}

uint64_t Pretokenizer::memory_bytes() const {
  uint64_t bytes = sizeof(*this);
  for (const auto& pattern : patterns_) bytes += pattern->memory_bytes();
  return bytes;
}

}  // namespace sluice::engine
