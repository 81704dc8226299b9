// UTF-8 as Unicode 15 §3.9 defines it: decoding that never trusts its input, and a stream that turns the
// bytes of tokens into text a terminal or a JSON string can take.
//
// Ill-formed input is cut into maximal subparts, each standing for one U+FFFD, as the Unicode standard
// recommends and as Python's decode("utf-8", "replace") does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::engine {

inline constexpr uint32_t replacement_character = 0xFFFD;

struct Utf8Char {
  uint32_t code_point = replacement_character;
  uint32_t bytes = 0;  // consumed; at least 1
  bool valid = false;
};

// What begins at text[at]; at < text.size().
Utf8Char decode_utf8(std::string_view text, size_t at);

// code_point is at most 0x10FFFF and not a surrogate; anything else is written as U+FFFD.
void append_utf8(std::string& out, uint32_t code_point);

// Bytes of the longest well-formed prefix.
size_t valid_utf8_prefix(std::string_view text);

// Number of characters, a broken sequence counting as one.
size_t count_utf8(std::string_view text);

// Takes bytes in any portions and gives back only complete characters. Bytes that may still become a
// character are held (at most 3) until the next portion; those that no longer can become U+FFFD.
// Threads: one at a time.
class Utf8Stream {
 public:
  // Appends to `out` what `bytes` completes.
  void append(std::string_view bytes, std::string& out);

  // Ends the text: what was held becomes U+FFFD. The stream may then be used for another text.
  void finish(std::string& out);

  bool pending() const { return held_ > 0; }

 private:
  void start(uint8_t byte, std::string& out);

  char bytes_[4] = {};
  uint8_t held_ = 0;    // bytes of the sequence so far
  uint8_t needed_ = 0;  // bytes of the whole sequence
};

}  // namespace sluice::engine
