#include "engine/text/utf8.h"

#include <doctest/doctest.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

using namespace sluice::engine;

namespace {

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2)
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

std::string through_stream(std::string_view bytes, const std::function<size_t()>& portion) {
  Utf8Stream stream;
  std::string out;
  while (!bytes.empty()) {
    const size_t n = std::min(portion(), bytes.size());
    const size_t before = out.size();
    stream.append(bytes.substr(0, n), out);
    CHECK(valid_utf8_prefix(std::string_view(out).substr(before)) == out.size() - before);
    bytes.remove_prefix(n);
  }
  stream.finish(out);
  CHECK(!stream.pending());
  return out;
}

nlohmann::json fixture() {
  std::ifstream file(SLUICE_SOURCE_DIR "/tests/engine/fixtures/tokens_utf8.json");
  return nlohmann::json::parse(file);
}

}  // namespace

TEST_CASE("broken UTF-8 becomes what Python's replace makes of it, however it is cut") {
  std::mt19937 rng(3);
  const auto cases = fixture();
  REQUIRE(cases.size() > 200);
  for (const auto& c : cases) {
    const std::string bytes = from_hex(c["bytes"]), text = c["text"];
    CAPTURE(c["bytes"].get<std::string>());
    CHECK(through_stream(bytes, [] { return size_t{1}; }) == text);
    CHECK(through_stream(bytes, [] { return size_t{100}; }) == text);
    CHECK(through_stream(bytes, [&] { return size_t{1} + rng() % 4; }) == text);
    std::string decoded;
    for (size_t at = 0; at < bytes.size(); at += decode_utf8(bytes, at).bytes) {
      append_utf8(decoded, decode_utf8(bytes, at).code_point);
    }
    CHECK(decoded == text);
    CHECK(count_utf8(bytes) == count_utf8(text));
  }
}

TEST_CASE("every code point survives encoding and decoding") {
  for (uint32_t cp = 0; cp <= 0x10FFFF; ++cp) {
    std::string text;
    append_utf8(text, cp);
    const Utf8Char c = decode_utf8(text, 0);
    const bool surrogate = cp >= 0xD800 && cp < 0xE000;
    if (c.code_point == (surrogate ? replacement_character : cp) && c.valid && c.bytes == text.size()) continue;
    FAIL("code point " << cp);
  }
  std::string text;
  append_utf8(text, 0x110000);
  CHECK(text == "\xEF\xBF\xBD");
}

TEST_CASE("a stream holds back exactly the incomplete character") {
  const std::string emoji = "\xF0\x9F\x98\x80";
  Utf8Stream stream;
  std::string out;
  for (size_t i = 0; i < 3; ++i) {
    stream.append(emoji.substr(i, 1), out);
    CHECK(out.empty());
    CHECK(stream.pending());
  }
  stream.append(emoji.substr(3), out);
  CHECK(out == emoji);
  stream.append("\xE4\xBD", out);
  stream.finish(out);
  CHECK(out == emoji + "\xEF\xBF\xBD");
  out.clear();
  stream.append("ok", out);
  CHECK(out == "ok");
}
