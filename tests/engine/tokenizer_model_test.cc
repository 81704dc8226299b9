// Tokenizers on the tables of real models, against what llama.cpp makes of the same texts.
#include <doctest/doctest.h>

#include <chrono>

#include "core/bytes.h"
#include "engine/model.h"
#include "engine/text/tokenizer.h"
#include "storage/gguf.h"
#include "tests/engine/engine_rig.h"

using namespace sluice;
using namespace sluice::engine;

namespace {

// null, with a message, where the model is not at hand.
std::unique_ptr<Tokenizer> load(const char* variable, const char* file) {
  const std::string path = test::fetched_model(variable, file);
  if (path.empty()) {
    MESSAGE("skipped: no ", file, " here; scripts/fetch-model gets it");
    return nullptr;
  }
  return test::must(open_tokenizer(test::must(storage::GgufFile::open(path))));
}

const Tokenizer* smollm2() {
  static const std::unique_ptr<Tokenizer> tokenizer = load("SLUICE_MODEL", "SmolLM2-135M-Instruct.Q4_1.gguf");
  return tokenizer.get();
}

const Tokenizer* gemma3() {
  static const std::unique_ptr<Tokenizer> tokenizer = load("SLUICE_MODEL_GEMMA3", "gemma-3-270m.Q4_K_M.gguf");
  return tokenizer.get();
}

// U+2581 comes back as a space from a SentencePiece tokenizer.
std::string spaced(std::string text) {
  const std::string_view block = "\u2581";
  for (size_t at; (at = text.find(block)) != std::string::npos;) text.replace(at, block.size(), " ");
  return text;
}

void check_ids(const Tokenizer& tokenizer, const std::string& fixture, bool spm) {
  const auto cases = test::read_json(test::fixture(fixture));
  CHECK(cases.size() >= 360);
  for (const auto& c : cases) {
    const std::string text = c["text"];
    CAPTURE(c["text"].dump());
    const auto encoded = tokenizer.encode(text, {.parse_special = true});
    REQUIRE(encoded.ok());
    CHECK(encoded->tokens == c["ids"].get<std::vector<TokenId>>());
    if (encoded->dropped_bytes == 0)
      CHECK(tokenizer.decode(encoded->tokens, true).value() == (spm ? spaced(text) : text));
  }
}

void check_linear(const Tokenizer& tokenizer) {
  for (const char* unit : {"a", " ", "<", "word ", "\n", "\xE4\xBD\xA0"}) {
    std::string text;
    while (text.size() < 1'000'000) text += unit;
    const auto start = std::chrono::steady_clock::now();
    const auto encoded = tokenizer.encode(text, {.parse_special = true});
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    REQUIRE(encoded.ok());
    CAPTURE(std::string(unit));
    CHECK(tokenizer.decode(encoded->tokens).value() == text);
    CHECK(took.count() < 20.0);  // about 0.5 s in release; quadratic would take an hour
    MESSAGE("1 MB of '" << std::string(unit) << "': " << took.count() << " s, " << encoded->tokens.size() << " tokens");
  }
}

}  // namespace

TEST_CASE("token ids equal llama.cpp's") {
  if (const Tokenizer* tokenizer = smollm2()) check_ids(*tokenizer, "tokens_smollm2.json", false);
  if (const Tokenizer* tokenizer = gemma3()) check_ids(*tokenizer, "tokens_gemma3.json", true);
}

TEST_CASE("SmolLM2: roles, memory, dropped control characters") {
  const Tokenizer* tokenizer = smollm2();
  if (!tokenizer) return;
  const Vocab& vocab = tokenizer->vocab();
  CHECK(vocab.size() == 49152);
  CHECK(vocab.bytes(1) == "<|im_start|>");
  CHECK(vocab.eos() == 2);
  CHECK(vocab.eot() == 2);
  CHECK(vocab.ends_generation(0));
  CHECK(vocab.ends_generation(2));
  CHECK(!vocab.ends_generation(1));
  CHECK(vocab.find(" the") > 0);
  CHECK(tokenizer->memory_bytes() > 1 * MiB);
  CHECK(tokenizer->memory_bytes() < 6 * MiB);
  MESSAGE("tokenizer memory: " << format_size(tokenizer->memory_bytes()));
  CHECK(tokenizer->encode("a\x04\x13z", {})->dropped_bytes == 2);
}

TEST_CASE("Gemma 3: roles, memory, bytes of what has no token") {
  const Tokenizer* tokenizer = gemma3();
  if (!tokenizer) return;
  const Vocab& vocab = tokenizer->vocab();
  CHECK(vocab.size() == 262144);
  CHECK(vocab.bos() == 2);
  CHECK(vocab.eos() == 1);
  CHECK(vocab.ends_generation(1));
  CHECK(vocab.ends_generation(106));  // <end_of_turn>
  CHECK(tokenizer->memory_bytes() > 4 * MiB);
  CHECK(tokenizer->memory_bytes() < 12 * MiB);
  MESSAGE("tokenizer memory: " << format_size(tokenizer->memory_bytes()));
  CHECK(tokenizer->encode("x", {.add_special = true})->tokens.front() == 2);
  CHECK(tokenizer->encode("\xFF\xFE", {})->tokens == std::vector<TokenId>{238 + 0xFF, 238 + 0xFE});
}

TEST_CASE("a million characters take about linear time" * doctest::test_suite("exactness")) {
  for (const Tokenizer* tokenizer : {smollm2(), gemma3()})
    if (tokenizer) check_linear(*tokenizer);
}
