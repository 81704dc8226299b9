// SentencePiece BPE on small tables.
#include "engine/text/spm.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

using namespace sluice;
using namespace sluice::engine;

namespace {

const std::string block = "\u2581";

// Three usual tokens, the 256 bytes, then pieces.
struct Table {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<float> scores = {0, 0, 0};
  std::vector<int32_t> types = {2, 3, 3};
  std::optional<bool> add_bos, add_space_prefix = false;
  SpecialIds ids;

  explicit Table(bool bytes = true) {
    constexpr const char* digits = "0123456789ABCDEF";
    for (int b = 0; bytes && b < 256; ++b)
      add(std::string("<0x") + digits[b / 16] + digits[b % 16] + ">", 0, TokenType::byte);
  }
  TokenId add(const std::string& text, float score, TokenType type = TokenType::normal) {
    tokens.push_back(text);
    scores.push_back(score);
    types.push_back(static_cast<int32_t>(type));
    return static_cast<TokenId>(tokens.size()) - 1;
  }
  Result<std::unique_ptr<Tokenizer>> try_make() const {
    const std::vector<std::string_view> views(tokens.begin(), tokens.end());
    TokenizerConfig config;
    config.model = "llama";
    config.tokens = views;
    config.token_types = types;
    config.scores = scores;
    config.add_bos = add_bos;
    config.add_space_prefix = add_space_prefix;
    config.ids = ids;
    return make_tokenizer(config);
  }
  std::unique_ptr<Tokenizer> make() const {
    auto made = try_make();
    REQUIRE_MESSAGE(made.ok(), made.status().message());
    return std::move(*made);
  }
};

using Ids = std::vector<TokenId>;

Ids encode(const Tokenizer& tokenizer, std::string_view text, EncodeOptions options = {}) {
  auto encoded = tokenizer.encode(text, options);
  REQUIRE_MESSAGE(encoded.ok(), encoded.status().message());
  return encoded->tokens;
}

constexpr TokenId byte(int b) { return 3 + b; }

// By the definition: the best pair of all, the leftmost among equals, until there is none.
Ids by_definition(const Table& table, const std::string& text) {
  std::map<std::string, TokenId> by_text;
  for (size_t i = 3 + 256; i < table.tokens.size(); ++i) by_text[table.tokens[i]] = static_cast<TokenId>(i);
  std::vector<std::string> pieces;
  for (const char c : text) pieces.emplace_back(1, c);
  while (true) {
    size_t best = pieces.size();
    float score = -INFINITY;
    for (size_t i = 0; i + 1 < pieces.size(); ++i) {
      const auto at = by_text.find(pieces[i] + pieces[i + 1]);
      if (at == by_text.end() || !(table.scores[static_cast<size_t>(at->second)] > score)) continue;
      best = i;
      score = table.scores[static_cast<size_t>(at->second)];
    }
    if (best == pieces.size()) break;
    pieces[best] += pieces[best + 1];
    pieces.erase(pieces.begin() + static_cast<long>(best) + 1);
  }
  Ids ids;
  for (const std::string& piece : pieces)
    ids.push_back(by_text.count(piece) ? by_text[piece] : byte(static_cast<uint8_t>(piece[0])));
  return ids;
}

}  // namespace

TEST_CASE("SPM: merging equals the definition on random tables") {
  std::mt19937 rng(1);
  for (int round = 0; round < 60; ++round) {
    Table table;
    std::vector<std::string> pieces = {"a", "b"};  // "c" has no token of its own
    for (int i = 0; i < 25; ++i) {
      const std::string both = pieces[rng() % pieces.size()] + (rng() % 8 == 0 ? "c" : pieces[rng() % pieces.size()]);
      if (std::find(pieces.begin(), pieces.end(), both) == pieces.end()) pieces.push_back(both);
    }
    for (const std::string& piece : pieces) table.add(piece, static_cast<float>(static_cast<int>(rng() % 13) - 6) / 3);
    const auto tokenizer = table.make();
    for (int i = 0; i < 40; ++i) {
      std::string text;
      for (size_t n = rng() % 60; text.size() < n;) text += "aaabbbc"[rng() % 7];
      CHECK(encode(*tokenizer, text) == by_definition(table, text));
    }
  }
}

TEST_CASE("SPM: spaces, their block, and the one that is put in front") {
  Table table;
  const TokenId gap = table.add(block, -1), a = table.add("a", -2), space_a = table.add(block + "a", -3);
  table.add_space_prefix = false;
  auto tokenizer = table.make();
  CHECK(encode(*tokenizer, "a a  a") == Ids{a, space_a, gap, space_a});
  CHECK(encode(*tokenizer, "a" + block + "a") == Ids{a, space_a});
  CHECK(tokenizer->decode(Ids{space_a, a}).value() == " aa");

  table.add_space_prefix = true;
  tokenizer = table.make();
  CHECK(encode(*tokenizer, "a a") == Ids{space_a, space_a});
  CHECK(encode(*tokenizer, "") == Ids{});
  CHECK(encode(*tokenizer, "a</s>a", {.parse_special = true}) == Ids{space_a, 2, space_a});
  CHECK(tokenizer->decode(Ids{space_a, space_a}).value() == "a a");
  CHECK(tokenizer->decode(Ids{1, space_a, 2, space_a}).value() == "a a");
  CHECK(tokenizer->decode(Ids{1, space_a, 2, space_a}, true).value() == "<s>a</s> a");
  CHECK(tokenizer->decode(Ids{a}).value() == "a");
  CHECK(tokenizer->token_bytes(space_a) == " a");  // what a stream shows keeps its space
  for (const char* text : {"a", " a", "  a ", "aa  a", "x\ny", " "})
    CHECK(tokenizer->decode(encode(*tokenizer, text)).value() == text);
}

TEST_CASE("SPM: what has no token becomes bytes, and is dropped where these have none") {
  Table table;
  const TokenId a = table.add("a", -1);
  const auto tokenizer = table.make();
  CHECK(encode(*tokenizer, "a\u00e9a") == Ids{a, byte(0xC3), byte(0xA9), a});
  CHECK(encode(*tokenizer,
               "\xE2\x82"
               "a\xFF") == Ids{byte(0xE2), byte(0x82), a, byte(0xFF)});
  CHECK(encode(*tokenizer, std::string_view("\0\n", 2)) == Ids{byte(0), byte(10)});
  std::string all;
  for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
  CHECK(tokenizer->decode(encode(*tokenizer, all)).value() == all);
  CHECK(encode(*tokenizer, "<0x41>").size() == 6);  // a byte's name is not its token

  Table poor(false);
  poor.add("a", -1);
  const auto encoded = poor.make()->encode("a\u00e9a", {});
  REQUIRE(encoded.ok());
  CHECK(encoded->tokens == Ids{3, 3});
  CHECK(encoded->dropped_bytes == 2);
}

TEST_CASE("SPM: special tokens, BOS, and the ids that files leave out") {
  Table table;
  const TokenId a = table.add("a", -1), line = table.add("\n\n", -1000, TokenType::user_defined);
  auto tokenizer = table.make();
  CHECK(tokenizer->vocab().bos() == 1);
  CHECK(tokenizer->vocab().eos() == 2);
  CHECK(tokenizer->vocab().unknown() == 0);
  CHECK(encode(*tokenizer, "a\n\na", {.add_special = true}) == Ids{1, a, line, a});
  CHECK(encode(*tokenizer, "</s>").size() == 4);
  CHECK(encode(*tokenizer, "</s>", {.parse_special = true}) == Ids{2});
  CHECK(encode(*tokenizer, "", {.add_special = true}) == Ids{1});
  table.add_bos = false;
  table.ids.eos = 0;
  tokenizer = table.make();
  CHECK(encode(*tokenizer, "a", {.add_special = true}) == Ids{a});
  CHECK(tokenizer->vocab().eos() == 0);
}

TEST_CASE("SPM: tables that make no sense are refused by name") {
  const auto check = [](const Table& table, const char* part) {
    const auto made = table.try_make();
    REQUIRE(!made.ok());
    CHECK(made.status().code() == Code::corrupt);
    CHECK_MESSAGE(made.status().message().find(part) != std::string::npos, made.status().message());
  };
  Table table;
  table.add("a", NAN);
  check(table, "tokenizer.ggml.scores[259]");
  table.scores.back() = INFINITY;
  check(table, "tokenizer.ggml.scores[259]");
  table.scores.pop_back();
  check(table, "scores has 259 entries");
  Table wide;
  wide.add(std::string(5000, 'a'), 0);
  check(wide, "tokenizer.ggml.tokens[259]: a piece of 5000 bytes");
}

TEST_CASE("SPM: scores of any size and sign keep their order") {
  const std::vector<float> scores = {3e38f, 5.0f, 1e-40f, 0.0f, -1e-40f, -1.0f, -2e5f, -3e38f};
  for (size_t better = 0; better + 1 < scores.size(); ++better) {
    Table table;
    for (const char* letter : {"a", "b", "c"}) table.add(letter, 0);
    const TokenId bc = table.add("bc", scores[better]);
    table.add("ab", scores[better + 1]);
    CHECK(encode(*table.make(), "abc") == Ids{3 + 256, bc});
  }
  Table equal;
  for (const char* letter : {"a", "b", "c"}) equal.add(letter, 0);
  equal.add("bc", 0.0f);
  const TokenId ab = equal.add("ab", -0.0f);
  CHECK(encode(*equal.make(), "abc") == Ids{ab, 3 + 256 + 2});
}
