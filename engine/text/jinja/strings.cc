#include "engine/text/jinja/strings.h"

#include <fmt/format.h>
#include <locale.h>
#include <string.h>
#include <wctype.h>

#include <cmath>

#include "engine/text/utf8.h"

namespace sluice::engine::jinja {
namespace {

// Unicode's case tables come with the C library. The locale lives as long as the process.
locale_t unicode_locale() {
  static const locale_t locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  return locale;
}

uint32_t change_case(uint32_t c, bool upper) {
  if (c < 0x80) {
    if (upper) return c >= 'a' && c <= 'z' ? c - 32 : c;
    return c >= 'A' && c <= 'Z' ? c + 32 : c;
  }
  const locale_t locale = unicode_locale();
  if (!locale) return c;
  return static_cast<uint32_t>(upper ? towupper_l(static_cast<wint_t>(c), locale)
                                     : towlower_l(static_cast<wint_t>(c), locale));
}

bool has_case(uint32_t c) { return change_case(c, true) != c || change_case(c, false) != c; }

// Format characters and private use, of those that Python's repr() escapes.
bool is_invisible(uint32_t c) {
  return (c >= 0x0600 && c <= 0x0605) || c == 0x061C || c == 0x06DD || c == 0x070F || c == 0x180E ||
         (c >= 0x200B && c <= 0x200F) || (c >= 0x202A && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) ||
         (c >= 0xE000 && c <= 0xF8FF) || c == 0xFEFF || (c >= 0xFFF0 && c <= 0xFFFB);
}

bool contains(std::string_view characters, uint32_t wanted) {
  for (size_t at = 0; at < characters.size();) {
    const Utf8Char c = decode_utf8(characters, at);
    if (c.valid && c.code_point == wanted) return true;
    at += c.bytes;
  }
  return false;
}

size_t last_character(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && text.size() - at < 4 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
  return decode_utf8(text, at).bytes == text.size() - at ? at : text.size() - 1;
}

}  // namespace

bool is_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::string_view strip(std::string_view text, const std::string* characters, bool left, bool right) {
  const auto goes = [&](size_t at) {
    const Utf8Char c = decode_utf8(text, at);
    return c.valid && (characters ? contains(*characters, c.code_point) : is_space(c.code_point));
  };
  while (left && !text.empty() && goes(0)) text.remove_prefix(decode_utf8(text, 0).bytes);
  while (right && !text.empty() && goes(last_character(text))) text = text.substr(0, last_character(text));
  return text;
}

std::string_view character_range(std::string_view text, int64_t begin, int64_t end) {
  size_t at = 0, first = text.size();
  int64_t index = 0;
  for (; at < text.size() && index < end; ++index) {
    if (index == begin) first = at;
    at += decode_utf8(text, at).bytes;
  }
  return first < at ? text.substr(first, at - first) : std::string_view();
}

std::string change_case(std::string_view text, Case to) {
  std::string out;
  out.reserve(text.size());
  bool inside = false;  // after a cased character (title), or not the first (capitalize)
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = decode_utf8(text, at);
    if (c.valid) {
      append_utf8(out, change_case(c.code_point, to == Case::upper || (to != Case::lower && !inside)));
    } else {
      out.append(text.substr(at, c.bytes));
    }
    inside = to == Case::capitalize || (c.valid && has_case(c.code_point));
    at += c.bytes;
  }
  return out;
}

size_t find_text(std::string_view text, std::string_view part, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (part.empty()) return from;
  // One letter has a faster search of its own; ThreadSanitizer's memmem also walks all the text at each call.
  const void* at = part.size() == 1
                       ? ::memchr(text.data() + from, static_cast<uint8_t>(part[0]), text.size() - from)
                       : ::memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return at ? static_cast<size_t>(static_cast<const char*>(at) - text.data()) : std::string_view::npos;
}

std::string replace(std::string_view text, std::string_view old, std::string_view with, int64_t count) {
  std::string out;
  size_t from = 0;
  while (count != 0) {
    const size_t at = find_text(text, old, from);
    if (at == std::string_view::npos) break;
    out.append(text.substr(from, at - from)).append(with);
    from = at + old.size();
    if (count > 0) --count;
    if (!old.empty()) continue;
    if (at >= text.size()) return out;  // an empty pattern stands before each character and at the end
    const size_t n = decode_utf8(text, at).bytes;
    out.append(text.substr(at, n));
    from = at + n;
  }
  return out.append(text.substr(from));
}

void append_json_string(std::string_view text, std::string& out) {
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      case '\b': out += "\\b"; break;
      case '\f': out += "\\f"; break;
      default:
        if (static_cast<uint8_t>(c) < 0x20) {
          out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

void append_string_repr(std::string_view text, std::string& out) {
  const char quote = text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos ? '"' : '\'';
  out += quote;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = decode_utf8(text, at);
    const uint32_t cp = c.code_point;
    if (cp == '\n') {
      out += "\\n";
    } else if (cp == '\r') {
      out += "\\r";
    } else if (cp == '\t') {
      out += "\\t";
    } else if (cp == '\\' || cp == static_cast<uint32_t>(quote)) {
      out.append({'\\', static_cast<char>(cp)});
    } else if (cp < 0x20 || (cp >= 0x7F && cp <= 0xA0) || cp == 0xAD) {
      out += fmt::format("\\x{:02x}", cp);
    } else if ((cp != ' ' && is_space(cp)) || is_invisible(cp)) {
      out += fmt::format("\\u{:04x}", cp);
    } else {
      out.append(text.substr(at, c.bytes));
    }
    at += c.bytes;
  }
  out += quote;
}

std::string real_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::string text = fmt::format("{}", value);  // the shortest that reads back
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

}  // namespace sluice::engine::jinja
