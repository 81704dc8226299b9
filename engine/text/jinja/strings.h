// What Python's str does, on UTF-8: characters are code points, white space and case are Unicode's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::engine::jinja {

// str.isspace() of a character.
bool is_space(uint32_t code_point);

// Without leading (left) and trailing (right) characters that are in `characters`, or white space if
// that is null.
std::string_view strip(std::string_view text, const std::string* characters, bool left, bool right);

// Characters [begin, end) by index; both within the text or clipped to it.
std::string_view character_range(std::string_view text, int64_t begin, int64_t end);

// upper(), lower(), title(), capitalize(). One character becomes one character: "ß".upper() stays "ß".
enum class Case { upper, lower, title, capitalize };
std::string change_case(std::string_view text, Case to);

// As std::string_view::find, in time linear in the text whatever the part is.
size_t find_text(std::string_view text, std::string_view part, size_t from = 0);

// `text` with the first `count` (-1: all) occurrences of `old` replaced.
std::string replace(std::string_view text, std::string_view old, std::string_view with, int64_t count);

// A JSON string, characters beyond ASCII as they are.
void append_json_string(std::string_view text, std::string& out);

// repr() of a string and of a float.
void append_string_repr(std::string_view text, std::string& out);
std::string real_repr(double value);

}  // namespace sluice::engine::jinja
