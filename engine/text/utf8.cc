#include "engine/text/utf8.h"

namespace sluice::engine {
namespace {

// Length of the sequence that a byte begins; 0 for a byte that begins none (table 3-7 of the standard).
uint8_t sequence_length(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;
  if (lead < 0xE0) return 2;
  if (lead < 0xF0) return 3;
  return lead < 0xF5 ? 4 : 0;
}

// May `byte` be byte number `index` (from 1) of a sequence that begins with `lead`?
bool may_follow(uint8_t lead, uint8_t index, uint8_t byte) {
  uint8_t low = 0x80, high = 0xBF;
  if (index == 1) {
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  }
  return byte >= low && byte <= high;
}

}  // namespace

Utf8Char decode_utf8(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[at + i]); };
  const uint8_t lead = byte(0);
  const uint8_t length = sequence_length(lead);
  if (length == 1) return {lead, 1, true};
  if (length == 0) return {replacement_character, 1, false};
  uint32_t code_point = lead & (0x7Fu >> length);
  for (uint8_t i = 1; i < length; ++i) {
    if (at + i >= text.size() || !may_follow(lead, i, byte(i))) return {replacement_character, i, false};
    code_point = code_point << 6 | (byte(i) & 0x3Fu);
  }
  return {code_point, length, true};
}

void append_utf8(std::string& out, uint32_t code_point) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point < 0xE000)) code_point = replacement_character;
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

size_t valid_utf8_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const Utf8Char c = decode_utf8(text, at);
    if (!c.valid) break;
    at += c.bytes;
  }
  return at;
}

size_t count_utf8(std::string_view text) {
  size_t n = 0;
  for (size_t at = 0; at < text.size(); at += decode_utf8(text, at).bytes) ++n;
  return n;
}

void Utf8Stream::start(uint8_t byte, std::string& out) {
  const uint8_t length = sequence_length(byte);
  if (length == 0) return append_utf8(out, replacement_character);
  if (length == 1) return out.push_back(static_cast<char>(byte));
  bytes_[0] = static_cast<char>(byte);
  held_ = 1;
  needed_ = length;
}

void Utf8Stream::append(std::string_view bytes, std::string& out) {
  for (const char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    if (held_ > 0 && !may_follow(static_cast<uint8_t>(bytes_[0]), held_, byte)) finish(out);
    if (held_ == 0) {
      start(byte, out);
      continue;
    }
    bytes_[held_++] = c;
    if (held_ < needed_) continue;
    out.append(bytes_, needed_);
    held_ = 0;
  }
}

void Utf8Stream::finish(std::string& out) {
  if (held_ > 0) append_utf8(out, replacement_character);
  held_ = 0;
}

}  // namespace sluice::engine
