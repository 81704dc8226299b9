// The printable alphabet in which byte-level BPE vocabularies write bytes: each byte is one code point
// below 324; the printable ones of Latin-1 stand for themselves, the rest follow from U+0100 on
// (Radford et al. 2019, GPT-2's bytes_to_unicode).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::engine {

// Code point that stands for a byte.
uint32_t byte_to_letter(uint8_t byte);

// The bytes that `text` spells. false where a character of it is not of the alphabet; `bytes` then
// holds what was read before.
bool decode_letters(std::string_view text, std::string& bytes);

}  // namespace sluice::engine
