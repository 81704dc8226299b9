#include "engine/text/byte_alphabet.h"

#include <array>

#include "engine/text/utf8.h"

namespace sluice::engine {
namespace {

constexpr uint32_t n_letters = 324;

constexpr bool is_printable(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
}

struct Tables {
  std::array<uint16_t, 256> letter{};
  std::array<int16_t, n_letters> byte{};
};

constexpr Tables make_tables() {
  Tables tables;
  for (auto& byte : tables.byte) byte = -1;
  uint16_t next = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const uint16_t letter = is_printable(byte) ? static_cast<uint16_t>(byte) : next++;
    tables.letter[byte] = letter;
    tables.byte[letter] = static_cast<int16_t>(byte);
  }
  return tables;
}
constexpr Tables tables = make_tables();

}  // namespace

uint32_t byte_to_letter(uint8_t byte) { return tables.letter[byte]; }

bool decode_letters(std::string_view text, std::string& bytes) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = decode_utf8(text, at);
    if (!c.valid || c.code_point >= n_letters || tables.byte[c.code_point] < 0) return false;
    bytes.push_back(static_cast<char>(tables.byte[c.code_point]));
    at += c.bytes;
  }
  return true;
}

}  // namespace sluice::engine
