#include "apps/values.h"

#include <charconv>
#include <cmath>

#include "apps/text.h"

namespace sluice::apps {
namespace {

Status bad(std::string_view text, const std::string& expected) {
  return Status(Code::invalid_argument, join({"'", text, "' is not ", expected}));
}

// The power of 1024 a unit stands for; -1 if it is none.
int unit_power(std::string_view unit) {
  static constexpr std::string_view letters = "bkmgt";
  if (unit.empty()) return 0;
  const size_t power = letters.find(static_cast<char>(unit.front() | 0x20));
  if (power == std::string_view::npos) return -1;
  if (power != 0) unit.remove_prefix(1);
  const bool known = unit.empty() || unit == "B" || unit == "b" || unit == "iB" || unit == "ib";
  return known ? static_cast<int>(power) : -1;
}

template <class T>
Result<T> parse_whole(std::string_view text, T low, T high) {
  const std::string expected = join({"a whole number from ", std::to_string(low), " to ", std::to_string(high)});
  T value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return bad(text, expected);
  if (value < low || value > high) return bad(text, expected);
  return value;
}

// What the character after a backslash stands for; 0 if nothing.
char escaped(char c) {
  switch (c) {
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case '\'':
    case '"':
    case '\\': return c;
    default: return 0;
  }
}

}  // namespace

Result<uint64_t> parse_size(std::string_view text) {
  const std::string expected = "a size above 0 (examples: 64M, 1.5G, 4096)";
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (error != std::errc() || !(number > 0)) return bad(text, expected);
  const int power = unit_power(text.substr(static_cast<size_t>(end - text.data())));
  if (power < 0) return bad(text, expected);
  const double bytes = std::floor(std::ldexp(number, 10 * power));
  if (!(bytes >= 1 && bytes < 0x1p63)) return bad(text, expected);
  return static_cast<uint64_t>(bytes);
}

Result<uint64_t> parse_unsigned(std::string_view text, uint64_t low, uint64_t high) {
  return parse_whole<uint64_t>(text, low, high);
}

Result<int64_t> parse_integer(std::string_view text, int64_t low, int64_t high) {
  return parse_whole<int64_t>(text, low, high);
}

Result<double> parse_number(std::string_view text, double low, double high) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return bad(text, "a number");
  if (value < low) return bad(text, format("a number of at least %g", low));
  if (value > high) return bad(text, format("a number of at most %g", high));
  return value;
}

std::string process_escapes(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const std::string_view rest = text.substr(i);
    if (rest.size() < 2 || rest[0] != '\\') {
      out += rest[0];
    } else if (const char c = escaped(rest[1])) {
      out += c;
      i += 1;
    } else {
      unsigned value = 0;
      const std::string_view digits = rest.substr(2, 2);
      const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
      const bool hex = rest[1] == 'x' && error == std::errc() && end == digits.data() + 2;
      out += hex ? static_cast<char>(value) : '\\';
      if (hex) i += 3;
    }
  }
  return out;
}

}  // namespace sluice::apps
