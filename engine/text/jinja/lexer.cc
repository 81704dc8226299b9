#include "engine/text/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "core/error.h"
#include "engine/text/jinja/strings.h"
#include "engine/text/utf8.h"

namespace sluice::engine::jinja {
namespace {

bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

constexpr std::array<std::string_view, 26> operators = {"//", "**", "==", "!=", "<=", ">=", "+", "-", "*",
                                                        "/",  "%",  "~",  "<",  ">",  "=",  ".", ",", ":",
                                                        "|",  "(",  ")",  "[",  "]",  "{",  "}", ";"};

std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n') continue;
    out += source[i] == '\r' ? '\n' : source[i];
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  Result<std::vector<Token>> run() {
    while (at_ < source_.size()) SLUICE_RETURN_IF_ERROR(data_and_tag());
    tokens_.push_back({Token::Kind::end, line_, ""});
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  Status fail(const char* what) const { return error(Code::corrupt, "chat template, line {}: {}", line_, what); }

  void advance(size_t bytes) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(at_ + bytes), '\n'));
    at_ += bytes;
    if (bytes > 0) line_starting_ = source_[at_ - 1] == '\n';
  }

  void add(Token::Kind kind, std::string_view text) {
    if (kind == Token::Kind::data && text.empty()) return;
    tokens_.push_back({kind, line_, std::string(text)});
  }

  // Text up to the next tag, then the tag.
  Status data_and_tag() {
    size_t tag = at_;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        add(Token::Kind::data, rest());
        advance(rest().size());
        return {};
      }
      if (const char c = source_[tag + 1]; c == '{' || c == '%' || c == '#') break;
      ++tag;
    }
    const char type = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    add(Token::Kind::data, before_tag(source_.substr(at_, tag - at_), sign, type != '{'));
    advance(tag - at_ + 2 + (sign == '-' || sign == '+'));
    line_starting_ = false;
    if (type == '#') return comment();
    if (type == '%' && at_raw()) return raw();
    add(type == '{' ? Token::Kind::variable_begin : Token::Kind::block_begin, "");
    return tag_tokens(type == '{');
  }

  // What remains of the text in front of a tag.
  std::string before_tag(std::string text, char sign, bool block) const {
    if (sign == '-') return std::string(strip(text, nullptr, false, true));
    if (sign == '+' || !block) return text;
    const size_t line = text.rfind('\n') + 1;  // 0 where there is none
    const bool whole_line = line > 0 || line_starting_;
    if (whole_line && std::all_of(text.begin() + static_cast<std::ptrdiff_t>(line), text.end(), is_blank))
      text.resize(line);
    return text;
  }

  // Behind "-%}" all white space goes, behind a block or comment one newline.
  void after_tag(bool strips, bool block) {
    if (strips) {
      advance(rest().size() - strip(rest(), nullptr, true, false).size());
    } else if (block && rest().starts_with('\n')) {
      advance(1);
    }
  }

  // Reads "[-+]}" with the given end; false if it is not here.
  bool tag_end(std::string_view end, bool block) {
    const std::string_view here = rest();
    const bool minus = here.starts_with('-') && here.substr(1).starts_with(end);
    const bool plus = block && here.starts_with('+') && here.substr(1).starts_with(end);
    if (!minus && !plus && !here.starts_with(end)) return false;
    advance(end.size() + (minus || plus));
    line_starting_ = false;
    after_tag(minus, block && !plus);
    return true;
  }

  Status comment() {
    while (at_ < source_.size()) {
      if (tag_end("#}", true)) return {};
      advance(1);
    }
    return fail("a comment does not end");
  }

  bool at_raw() const {
    const std::string_view here = strip(rest(), nullptr, true, false);
    if (!here.starts_with("raw")) return false;
    const std::string_view end = strip(here.substr(3), nullptr, true, false);
    return end.starts_with("%}") || end.starts_with("-%}");
  }

  Status raw() {
    const size_t end = source_.find("%}", at_);
    const bool strips = source_[end - 1] == '-';
    advance(end + 2 - at_);
    if (strips) after_tag(true, false);
    for (size_t tag = source_.find("{%", at_); tag != std::string::npos; tag = source_.find("{%", tag + 1)) {
      size_t name = tag + 2;
      const char sign = name < source_.size() ? source_[name] : '\0';
      name += sign == '-' || sign == '+';
      while (name < source_.size() && is_blank(source_[name])) ++name;
      if (!std::string_view(source_).substr(name).starts_with("endraw")) continue;
      add(Token::Kind::data, before_tag(source_.substr(at_, tag - at_), sign, true));
      advance(name + 6 - at_);
      while (!rest().empty() && is_blank(rest()[0])) advance(1);
      return tag_end("%}", true) ? Status() : fail("endraw does not end");
    }
    return fail("a raw block does not end");
  }

  Status tag_tokens(bool variable) {
    const std::string_view end = variable ? "}}" : "%}";
    std::string open;  // brackets
    while (true) {
      while (!rest().empty() && is_blank(rest()[0])) advance(1);
      if (rest().empty()) return fail("a tag does not end");
      const int line = line_;
      if (open.empty() && tag_end(end, !variable)) {
        tokens_.push_back({variable ? Token::Kind::variable_end : Token::Kind::block_end, line, ""});
        return {};
      }
      SLUICE_RETURN_IF_ERROR(one_token(open));
    }
  }

  Status one_token(std::string& open) {
    const char c = rest()[0];
    if (is_name_start(c)) return name();
    if (is_digit(c)) return number();
    if (c == '"' || c == '\'') return string(c);
    for (const std::string_view op : operators) {
      if (!rest().starts_with(op)) continue;
      if (op == "(" || op == "[" || op == "{") open += op;
      if (op == ")" || op == "]" || op == "}") {
        const char wanted = op == ")" ? '(' : op == "]" ? '[' : '{';
        if (open.empty() || open.back() != wanted) return fail("brackets do not match");
        open.pop_back();
      }
      add(Token::Kind::op, op);
      advance(op.size());
      return {};
    }
    return fail("there is a character that does not belong here");
  }

  Status name() {
    size_t n = 1;
    while (n < rest().size() && (is_name_start(rest()[n]) || is_digit(rest()[n]))) ++n;
    add(Token::Kind::name, rest().substr(0, n));
    advance(n);
    return {};
  }

  Status number() {
    size_t n = 0;
    std::string digits;
    const auto take_digits = [&] {
      for (; n < rest().size() && (is_digit(rest()[n]) || rest()[n] == '_'); ++n) {
        if (rest()[n] != '_') digits += rest()[n];
      }
    };
    take_digits();
    const auto digit_at = [&](size_t i) { return i < rest().size() && is_digit(rest()[i]); };
    bool real = false;
    if (n < rest().size() && rest()[n] == '.' && digit_at(n + 1)) {
      real = true;
      digits += rest()[n++];
      take_digits();
    }
    const bool exponent = n < rest().size() && (rest()[n] == 'e' || rest()[n] == 'E');
    const bool sign = exponent && n + 1 < rest().size() && (rest()[n + 1] == '-' || rest()[n + 1] == '+');
    if (exponent && digit_at(n + 1 + sign)) {
      real = true;
      digits.append(rest().substr(n, 1 + sign));
      n += 1 + sign;
      take_digits();
    }
    if (n < rest().size() && is_name_start(rest()[n])) return fail("a number runs into a name");
    add(real ? Token::Kind::real : Token::Kind::integer, digits);
    advance(n);
    return {};
  }

  Status string(char quote) {
    std::string text;
    size_t n = 1;
    while (n < rest().size() && rest()[n] != quote) {
      if (rest()[n] != '\\') {
        text += rest()[n++];
      } else if (!escape(n, text)) {
        return fail("a string has a broken escape");
      }
    }
    if (n >= rest().size()) return fail("a string does not end");
    add(Token::Kind::string, text);
    advance(n + 1);
    return {};
  }

  // Reads the escape at rest()[n] as Python does; an unknown one stands for itself.
  bool escape(size_t& n, std::string& text) {
    if (n + 1 >= rest().size()) return false;
    const char c = rest()[n + 1];
    constexpr std::string_view from = "abfnrtv\\'\"", to = "\a\b\f\n\r\t\v\\'\"";
    n += 2;
    if (const size_t known = from.find(c); known != std::string_view::npos) {
      text += to[known];
      return true;
    }
    if (c == '\n') return true;
    if (c == 'x' || c == 'u' || c == 'U') return numeric_escape(n, c == 'x' ? 2 : c == 'u' ? 4 : 8, 16, text);
    if (c >= '0' && c <= '7') {
      size_t digits = 1;
      while (digits < 3 && n - 1 + digits < rest().size() && rest()[n - 1 + digits] >= '0' &&
             rest()[n - 1 + digits] <= '7')
        ++digits;
      --n;
      return numeric_escape(n, digits, 8, text);
    }
    text.append({'\\', c});
    return true;
  }

  bool numeric_escape(size_t& n, size_t digits, int base, std::string& text) {
    if (n + digits > rest().size()) return false;
    uint32_t value = 0;
    const char* begin = rest().data() + n;
    const auto parsed = std::from_chars(begin, begin + digits, value, base);
    if (parsed.ec != std::errc() || parsed.ptr != begin + digits) return false;
    append_utf8(text, value);
    n += digits;
    return true;
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

Result<std::vector<Token>> tokenize(std::string_view source) { return Lexer(normalized(source)).run(); }

}  // namespace sluice::engine::jinja
