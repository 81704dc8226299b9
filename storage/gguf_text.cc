#include <string>

#include "storage/gguf_header.h"

namespace sluice::storage {
namespace {

bool continuation(std::string_view text, size_t i) {
  return i < text.size() && (static_cast<unsigned char>(text[i]) & 0xc0) == 0x80;
}

// Bytes of the well-formed character at `i` (Unicode 15, table 3-7), 0 if there is none.
size_t character_bytes(std::string_view text, size_t i) {
  const auto lead = static_cast<unsigned char>(text[i]);
  if (lead < 0x80) return 1;
  const size_t n = lead >= 0xc2 && lead <= 0xdf ? 2 : (lead & 0xf0) == 0xe0 ? 3 : lead >= 0xf0 && lead <= 0xf4 ? 4 : 0;
  for (size_t k = 1; k < n; ++k)
    if (!continuation(text, i + k)) return 0;
  if (n < 3) return n;
  const auto second = static_cast<unsigned char>(text[i + 1]);
  const bool overlong = (lead == 0xe0 && second < 0xa0) || (lead == 0xf0 && second < 0x90);
  const bool beyond = (lead == 0xed && second > 0x9f) || (lead == 0xf4 && second > 0x8f);  // surrogates, U+110000
  return overlong || beyond ? 0 : n;
}

bool control(std::string_view character) {
  const auto c = static_cast<unsigned char>(character[0]);
  if (character.size() == 1) return c < 0x20 || c == 0x7f;
  return c == 0xc2 && static_cast<unsigned char>(character[1]) < 0xa0;
}

}  // namespace

bool printable_utf8(std::string_view text) {
  for (size_t i = 0, n = 0; i < text.size(); i += n) {
    n = character_bytes(text, i);
    if (n == 0 || control(text.substr(i, n))) return false;
  }
  return true;
}

std::string shortened(std::string_view name) {
  constexpr size_t most = 80;
  if (name.size() <= most) return std::string(name);
  size_t end = most;
  while (end > 0 && continuation(name, end)) --end;
  return std::string(name.substr(0, end)) + "…";
}

}  // namespace sluice::storage
