// The tokenizer on SmolLM2's own tables, against what llama.cpp makes of the same texts.
#include <doctest/doctest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/bytes.h"
#include "engine/text/tokenizer.h"
#include "storage/gguf.h"

using namespace sluice;
using namespace sluice::engine;

namespace {

std::string model_path() {
  if (const char* path = std::getenv("SLUICE_MODEL")) return path;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::string base = cache ? cache : std::string(home ? home : "") + "/.cache";
  return base + "/sluice/SmolLM2-135M-Instruct.Q4_1.gguf";
}

std::vector<std::string_view> strings(const storage::GgufFile& file, std::string_view key) {
  const auto array = file.get_strings(key);
  REQUIRE_MESSAGE(array.ok(), array.status().message());
  return {array->begin(), array->end()};
}

std::unique_ptr<Tokenizer> load(const std::string& path) {
  const auto file = storage::GgufFile::open(path);
  REQUIRE_MESSAGE(file.ok(), file.status().message());
  const auto tokens = strings(*file, "tokenizer.ggml.tokens"), merges = strings(*file, "tokenizer.ggml.merges");
  const auto types = file->get_array<int32_t>("tokenizer.ggml.token_type", tokens.size());
  REQUIRE(types.ok());
  TokenizerConfig config;
  config.model = *file->get<std::string_view>("tokenizer.ggml.model");
  config.pre = *file->get_or<std::string_view>("tokenizer.ggml.pre", "");
  config.tokens = tokens;
  config.merges = merges;
  config.token_types = *types;
  config.ids.bos = *file->get_or<int64_t>("tokenizer.ggml.bos_token_id", -1);
  config.ids.eos = *file->get_or<int64_t>("tokenizer.ggml.eos_token_id", -1);
  config.ids.unknown = *file->get_or<int64_t>("tokenizer.ggml.unknown_token_id", -1);
  if (file->has("tokenizer.ggml.add_bos_token")) config.add_bos = *file->get<bool>("tokenizer.ggml.add_bos_token");
  auto made = make_tokenizer(config);
  REQUIRE_MESSAGE(made.ok(), made.status().message());
  return *std::move(made);
}

// null, with a message, where the model is not at hand.
const Tokenizer* smollm2() {
  static const std::string path = model_path();
  static const bool there = std::filesystem::exists(path);
  if (!there) {
    MESSAGE("skipped: no model at " << path << " (set SLUICE_MODEL)");
    return nullptr;
  }
  static const std::unique_ptr<Tokenizer> tokenizer = load(path);
  return tokenizer.get();
}

}  // namespace

TEST_CASE("SmolLM2: token ids equal llama.cpp's") {
  const Tokenizer* tokenizer = smollm2();
  if (!tokenizer) return;
  const char* other = std::getenv("SLUICE_TOKEN_FIXTURE");
  std::ifstream file(other ? other : SLUICE_SOURCE_DIR "/tests/engine/fixtures/tokens_smollm2.json");
  const auto cases = nlohmann::json::parse(file);
  CHECK(cases.size() >= 360);
  for (const auto& c : cases) {
    const std::string text = c["text"];
    CAPTURE(c["text"].dump());
    const auto encoded = tokenizer->encode(text, {.parse_special = true});
    REQUIRE(encoded.ok());
    CHECK(encoded->tokens == c["ids"].get<std::vector<TokenId>>());
    if (encoded->dropped_bytes == 0) CHECK(tokenizer->decode(encoded->tokens, true).value() == text);
  }
}

TEST_CASE("SmolLM2: roles, memory, dropped control characters") {
  const Tokenizer* tokenizer = smollm2();
  if (!tokenizer || std::getenv("SLUICE_TOKEN_FIXTURE")) return;
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

TEST_CASE("SmolLM2: a million characters take about linear time") {
  const Tokenizer* tokenizer = smollm2();
  if (!tokenizer) return;
  for (const char* unit : {"a", " ", "<", "word ", "\xE4\xBD\xA0"}) {
    std::string text;
    while (text.size() < 1'000'000) text += unit;
    const auto start = std::chrono::steady_clock::now();
    const auto encoded = tokenizer->encode(text, {.parse_special = true});
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    REQUIRE(encoded.ok());
    CAPTURE(unit);
    CHECK(tokenizer->decode(encoded->tokens).value() == text);
    CHECK(took.count() < 20.0);  // about 0.5 s in release; quadratic would take an hour
    MESSAGE("1 MB of '" << unit << "': " << took.count() << " s, " << encoded->tokens.size() << " tokens");
  }
}
