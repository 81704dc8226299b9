#include "engine/text/tokenizer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <random>
#include <thread>

#include "engine/text/byte_alphabet.h"
#include "engine/text/pretokenizer.h"
#include "engine/text/utf8.h"

using namespace sluice;
using namespace sluice::engine;

namespace {

std::string letters(std::string_view bytes) {
  std::string out;
  for (const char b : bytes) append_utf8(out, byte_to_letter(static_cast<uint8_t>(b)));
  return out;
}

// A small byte-level vocabulary: all bytes in order (id = byte), then the merged tokens, then specials.
struct TestVocab {
  std::vector<std::string> tokens, merges;
  std::vector<int32_t> types;
  std::string pre = "gpt-2", model = "gpt2";
  SpecialIds ids;
  std::optional<bool> add_bos, add_eos;

  TestVocab() {
    for (int b = 0; b < 256; ++b) add(letters(std::string(1, static_cast<char>(b))), 1);
  }
  int add(const std::string& text, int type) {
    tokens.push_back(text);
    types.push_back(type);
    return static_cast<int>(tokens.size()) - 1;
  }
  int merge(const std::string& left, const std::string& right) {
    merges.push_back(letters(left) + " " + letters(right));
    const auto at = std::find(tokens.begin(), tokens.end(), letters(left + right));
    return at != tokens.end() ? static_cast<int>(at - tokens.begin()) : add(letters(left + right), 1);
  }
  Result<std::unique_ptr<Tokenizer>> make() const {
    const std::vector<std::string_view> token_views(tokens.begin(), tokens.end());
    const std::vector<std::string_view> merge_views(merges.begin(), merges.end());
    TokenizerConfig config;
    config.model = model;
    config.pre = pre;
    config.tokens = token_views;
    config.merges = merge_views;
    config.token_types = types;
    config.ids = ids;
    config.add_bos = add_bos;
    config.add_eos = add_eos;
    return make_tokenizer(config);
  }
};

std::vector<TokenId> encode(const Tokenizer& tokenizer, std::string_view text, EncodeOptions options = {}) {
  auto encoded = tokenizer.encode(text, options);
  REQUIRE_MESSAGE(encoded.ok(), encoded.status().message());
  return encoded->tokens;
}

struct Collect final : WordSink {
  std::vector<std::string> words;
  void word(std::string_view bytes) override { words.emplace_back(bytes); }
};

std::vector<std::string> split(std::string_view pre, std::string_view text) {
  auto rules = Pretokenizer::make(pre);
  REQUIRE_MESSAGE(rules.ok(), rules.status().message());
  Collect sink;
  const Status status = rules->split(text, sink);
  REQUIRE_MESSAGE(status.ok(), status.message());
  return sink.words;
}

using Words = std::vector<std::string>;

void check_fails(const TestVocab& vocab, Code code, const char* part) {
  const auto made = vocab.make();
  REQUIRE(!made.ok());
  CHECK(made.status().code() == code);
  CHECK_MESSAGE(made.status().message().find(part) != std::string::npos, made.status().message());
}

}  // namespace

TEST_CASE("words: gpt-2 and smollm") {
  CHECK(split("gpt-2", "Hello world, it's 2024!  x") ==
        Words{"Hello", " world", ",", " it", "'s", " 2024", "!", " ", " x"});
  CHECK(split("smollm", "a 12 b") == Words{"a", " ", "1", "2", " b"});
  CHECK(split("smollm", "x42y") == Words{"x", "4", "2", "y"});
  CHECK(split("gpt-2", "a\n\n b\t\tc  ") == Words{"a", "\n\n", " b", "\t", "\t", "c", "  "});
  CHECK(split("gpt-2", "DON'T don't") == Words{"DON", "'", "T", " don", "'t"});
  CHECK(split("gpt-2", "\xC2\xA0\xC2\xA0x") == Words{"\xC2\xA0", "\xC2\xA0", "x"});
  CHECK(split("gpt-2", "\xE1\xA0\x8E x") == Words{"\xE1\xA0\x8E", " x"});  // U+180E is no white space
  CHECK(split("gpt-2", "").empty());
}

TEST_CASE("words: llama-bpe, qwen2, tekken, gpt-4o, deepseek-v3, falcon, default") {
  CHECK(split("llama-bpe", "I'LL go 12345\r\n\n x.\n") ==
        Words{"I", "'LL", " go", " ", "123", "45", "\r\n\n", " x", ".\n"});
  CHECK(split("qwen2", "a 123  b\n  c") == Words{"a", " ", "1", "2", "3", " ", " b", "\n", " ", " c"});
  CHECK(split("llama-bpe", "(foo) \"bar") == Words{"(foo", ")", " \"", "bar"});
  CHECK(split("tekken", "HelloWorld FOObar /\n/") == Words{"Hello", "World", " FOObar", " /\n/"});
  CHECK(split("gpt-4o", "He'll DON'T 1234") == Words{"He'll", " DON'T", " ", "123", "4"});
  CHECK(split("deepseek-v3",
              "a\xE4\xBD\xA0\xE5\xA5\xBD"
              "b 1234") == Words{"a", "\xE4\xBD\xA0\xE5\xA5\xBD", "b", " ", "123", "4"});
  CHECK(split("falcon", "a.b 12345") == Words{"a", ".", "b", " ", "123", "45"});
  CHECK(split("", "a$b 1234") == split("default", "a$b 1234"));
}

TEST_CASE("words together are the text, whatever the bytes") {
  std::mt19937 rng(11);
  const std::string pieces[] = {"a",
                                "B",
                                "1",
                                " ",
                                "\n",
                                "\r",
                                "\t",
                                "'",
                                "s",
                                "L",
                                ".",
                                "\xC2\xA0",
                                "\xE4\xBD\xA0",
                                "\xFF",
                                "\xE4",
                                "\xCC\x81",
                                "\xF0\x9F\x98\x80",
                                "/",
                                std::string(1, '\0'),
                                "\xE2\x80\x83"};
  for (const char* pre : {"default", "gpt-2", "smollm", "llama-bpe", "qwen2", "qwen35", "deepseek-v3", "deepseek-coder",
                          "falcon", "tekken", "gpt-4o", "chatglm-bpe"}) {
    for (int round = 0; round < 200; ++round) {
      std::string text;
      for (int i = static_cast<int>(rng() % 30); i >= 0; --i) text += pieces[rng() % std::size(pieces)];
      std::string joined;
      for (const std::string& word : split(pre, text)) {
        CHECK(!word.empty());
        joined += word;
      }
      CHECK(joined == text);
    }
  }
}

TEST_CASE("an unknown pre-tokenizer or model is named") {
  TestVocab vocab;
  vocab.pre = "klingon";
  check_fails(vocab, Code::unsupported, "klingon");
  vocab = TestVocab();
  vocab.model = "bert";
  check_fails(vocab, Code::unsupported, "bert");
}

// The definition of BPE: the pair of lowest rank, leftmost first, until there is none.
static std::vector<TokenId> reference_bpe(const TestVocab& vocab, std::string_view word) {
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  for (size_t i = 0; i < vocab.merges.size(); ++i) {
    const size_t space = vocab.merges[i].find(' ', 1);
    ranks.emplace(std::pair(vocab.merges[i].substr(0, space), vocab.merges[i].substr(space + 1)), i);
  }
  std::vector<std::string> parts;
  for (const char b : word) parts.push_back(letters(std::string(1, b)));
  while (true) {
    size_t best = SIZE_MAX, at = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = ranks.find({parts[i], parts[i + 1]});
      if (found == ranks.end() || found->second >= best) continue;
      best = found->second;
      at = i;
    }
    if (best == SIZE_MAX) break;
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
  std::vector<TokenId> ids;
  for (const std::string& part : parts) {
    ids.push_back(
        static_cast<TokenId>(std::find(vocab.tokens.begin(), vocab.tokens.end(), part) - vocab.tokens.begin()));
  }
  return ids;
}

TEST_CASE("merging equals the definition of BPE on random tables") {
  std::mt19937 rng(5);
  for (int table = 0; table < 30; ++table) {
    TestVocab vocab;
    std::vector<std::string> known = {"a", "b", "c"};
    for (int i = 0; i < 40; ++i) {
      const std::string left = known[rng() % known.size()], right = known[rng() % known.size()];
      if (left.size() + right.size() > 12) continue;
      vocab.merge(left, right);
      known.push_back(left + right);
    }
    auto made = vocab.make();
    REQUIRE_MESSAGE(made.ok(), made.status().message());
    for (int round = 0; round < 40; ++round) {
      std::string word;
      for (int i = static_cast<int>(rng() % 60); i >= 0; --i) word.push_back(static_cast<char>('a' + rng() % 3));
      CHECK(encode(**made, word) == reference_bpe(vocab, word));
    }
  }
}

TEST_CASE("ids and bytes of every byte, broken UTF-8 and NUL included") {
  auto made = TestVocab().make();
  REQUIRE(made.ok());
  std::string all;
  std::vector<TokenId> ids;
  for (int b = 255; b >= 0; --b) {
    all.push_back(static_cast<char>(b));
    ids.push_back(b);
  }
  CHECK(encode(**made, all) == ids);
  CHECK((*made)->decode(ids).value() == all);
  CHECK((*made)->token_bytes(0xC3) == "\xC3");
  CHECK((*made)->decode(std::vector<TokenId>{256}).status().code() == Code::invalid_argument);
  CHECK((*made)->decode(std::vector<TokenId>{-1}).status().code() == Code::invalid_argument);
}

TEST_CASE("special tokens: longest first, control ones only when asked, BOS and EOS only when asked") {
  TestVocab vocab;
  const int bos = vocab.add("<s>", 3), eos = vocab.add("</s>", 3), longer = vocab.add("<s><s>x", 3);
  const int user = vocab.add("  ", 4), late = vocab.add("bcd", 4), early = vocab.add("ab", 4);
  vocab.ids.bos = bos;
  vocab.ids.eos = eos;
  vocab.add_bos = vocab.add_eos = true;
  auto made = vocab.make();
  REQUIRE_MESSAGE(made.ok(), made.status().message());
  const Tokenizer& t = **made;
  using Ids = std::vector<TokenId>;
  CHECK(encode(t, "<s>a</s>", {.parse_special = true}) == Ids{bos, 'a', eos});
  CHECK(encode(t, "<s>") == Ids{'<', 's', '>'});
  CHECK(encode(t, "<s><s><s>x", {.parse_special = true}) == Ids{bos, longer});
  CHECK(encode(t, "a  b") == Ids{'a', user, 'b'});
  CHECK(encode(t, "abcd") == Ids{'a', late});
  CHECK(encode(t, "abab") == Ids{early, early});
  CHECK(encode(t, "a", {.add_special = true}) == Ids{bos, 'a', eos});
  CHECK(encode(t, "", {.add_special = true}) == Ids{bos, eos});
  CHECK(encode(t, "").empty());
  CHECK(t.decode(Ids{bos, 'a', eos}).value() == "a");
  CHECK(t.decode(Ids{bos, 'a', eos}, true).value() == "<s>a</s>");
  CHECK(t.vocab().ends_generation(eos));
  CHECK(!t.vocab().ends_generation(bos));
  CHECK(t.vocab().find("ab") == early);
  CHECK(t.vocab().find("nothing") == no_token);
}

TEST_CASE("a byte without a token is dropped and counted") {
  TestVocab vocab;
  vocab.tokens['b'] = "unused";
  auto made = vocab.make();
  REQUIRE(made.ok());
  const auto encoded = (*made)->encode("abcb");
  REQUIRE(encoded.ok());
  CHECK(encoded->tokens == std::vector<TokenId>{'a', 'c'});
  CHECK(encoded->dropped_bytes == 2);
}

TEST_CASE("llama-bpe takes a whole word that is a token, and adds BOS where there is one") {
  TestVocab vocab;
  vocab.pre = "llama-bpe";
  const int whole = vocab.add("abc", 1), bos = vocab.add("<|begin_of_text|>", 3);
  vocab.ids.bos = bos;
  auto made = vocab.make();
  REQUIRE(made.ok());
  CHECK(encode(**made, "abc ab") == std::vector<TokenId>{whole, ' ', 'a', 'b'});
  CHECK(encode(**made, "", {.add_special = true}) == std::vector<TokenId>{bos});
  vocab.add_bos = false;
  CHECK(encode(**vocab.make(), "", {.add_special = true}).empty());
}

TEST_CASE("tables that contradict themselves") {
  TestVocab vocab;
  vocab.add(letters("a"), 1);
  check_fails(vocab, Code::corrupt, "tokens[256] is the same as tokens[97]");

  vocab = TestVocab();
  vocab.merges.push_back("a zz");
  check_fails(vocab, Code::corrupt, "merges[0]");
  vocab.merges[0] = "a b";  // both known, "ab" is not
  check_fails(vocab, Code::corrupt, "\"a b\"");
  for (const char* line : {"", "a", " a", "a ", "ab\x01"}) {
    vocab.merges[0] = line;
    check_fails(vocab, Code::corrupt, "is not a pair");
  }

  vocab = TestVocab();
  vocab.types[7] = 9;
  check_fails(vocab, Code::corrupt, "token_type[7] is 9");
  vocab.types.resize(3);
  check_fails(vocab, Code::corrupt, "token_type has 3 entries for 256");

  vocab = TestVocab();
  vocab.ids.eos = 256;
  check_fails(vocab, Code::corrupt, "eos token id 256");
  vocab.ids.eos = int64_t{1} << 40;
  check_fails(vocab, Code::corrupt, "eos");
  vocab.ids = {.bos = -7};
  check_fails(vocab, Code::corrupt, "bos");
  vocab.ids = {};
  vocab.add_eos = true;
  check_fails(vocab, Code::corrupt, "add_eos_token");

  vocab = TestVocab();
  vocab.tokens.clear();
  vocab.types.clear();
  check_fails(vocab, Code::corrupt, "empty");

  vocab = TestVocab();
  vocab.add(std::string(70000, 'x'), 1);
  check_fails(vocab, Code::corrupt, "tokens[256]");
}

TEST_CASE("empty and undecodable tokens are tolerated and never produced") {
  TestVocab vocab;
  vocab.add("", 1);
  vocab.add("", 1);
  const int odd = vocab.add("\xE4\xBD\xA0", 1);  // not of the byte alphabet: stands for itself
  auto made = vocab.make();
  REQUIRE_MESSAGE(made.ok(), made.status().message());
  CHECK(encode(**made, "\xE4\xBD\xA0") == std::vector<TokenId>{0xE4, 0xBD, 0xA0});
  CHECK((*made)->token_bytes(odd) == "\xE4\xBD\xA0");
  CHECK((*made)->token_bytes(256).empty());
}

TEST_CASE("hostile text takes about linear time" * doctest::test_suite("one thread")) {
  TestVocab vocab;
  std::string run = "a";
  for (int i = 0; i < 7; ++i) {
    vocab.merge(run, run);
    run += run;
  }
  vocab.add("<|a|>", 3);
  for (const char* pre :
       {"smollm", "llama-bpe", "qwen2", "default", "falcon", "tekken", "gpt-4o", "deepseek-v3", "deepseek-coder"}) {
    vocab.pre = pre;
    auto made = vocab.make();
    REQUIRE(made.ok());
    for (const char* unit : {"a", " ", "\n", "'", "1", "<", "A", " \n", "\xC3\xA9", "\xFF", "  x"}) {
      std::string text;
      while (text.size() < 100'000) text += unit;
      const auto start = std::chrono::steady_clock::now();
      const auto ids = encode(**made, text, {.parse_special = true});
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      CAPTURE(pre);
      CAPTURE(unit);
      CHECK(took.count() < 5.0);  // quadratic would take minutes
      CHECK((*made)->decode(ids).value() == text);
    }
  }
}

TEST_CASE("one tokenizer, many threads") {
  TestVocab vocab;
  vocab.merge("a", "b");
  vocab.pre = "llama-bpe";
  auto made = vocab.make();
  REQUIRE(made.ok());
  const auto expected = encode(**made, "abab cab 123");
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 200; ++n) {
        if ((*made)->encode("abab cab 123", {})->tokens != expected) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}
