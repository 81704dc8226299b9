// What the tests of whole models share: fixtures, engines under a budget, and logits row by row.
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "engine/runtime.h"
#include "sluice/engine.h"

namespace sluice::test {

inline std::string fixture(const std::string& name) {
  return std::string(SLUICE_SOURCE_DIR) + "/tests/engine/fixtures/" + name;
}

inline nlohmann::json read_json(const std::string& path) {
  std::ifstream file(path);
  REQUIRE_MESSAGE(file.good(), path);
  return nlohmann::json::parse(file);
}

// A model that scripts/fetch-model gets, or "" where it is not: where `variable` says, or in the user's cache.
inline std::string fetched_model(const char* variable, const std::string& file) {
  if (const char* path = std::getenv(variable); path != nullptr) return path;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::string base = cache != nullptr ? cache : home != nullptr ? std::string(home) + "/.cache" : "";
  const std::string path = base + "/sluice/" + file;
  return std::filesystem::exists(path) ? path : "";
}

// Options with a machine file, so that no test measures.
inline EngineOptions options_for(const std::string& model, uint64_t ram) {
  EngineOptions options;
  options.model = model;
  options.ram = ram;
  options.threads = 2;
  options.machine_file = fixture("machine.json");
  options.vram = 0;  // whatever this machine has
  return options;
}

template <class T>
T must(Result<T> result) {
  REQUIRE_MESSAGE(result.ok(), result.status().message());
  return std::move(*result);
}

inline std::unique_ptr<Engine> open(const EngineOptions& options) { return must(Engine::open(options)); }

// Logits of every position of a sequence that is given in batches of `step` tokens.
inline std::vector<float> all_logits(engine::Runtime& runtime, const std::vector<int32_t>& ids, size_t step) {
  const SequenceId sequence = must(runtime.kv().create());
  std::vector<float> logits;
  for (size_t at = 0; at < ids.size(); at += step) {
    Batch batch;
    for (size_t i = at; i < std::min(ids.size(), at + step); ++i)
      batch.tokens.push_back({ids[i], static_cast<int32_t>(i), sequence, 0, true});
    const auto result = must(runtime.step(batch));
    logits.insert(logits.end(), result.logits, result.logits + uint64_t{result.n_rows} * runtime.graph().n_vocab);
  }
  runtime.kv().destroy(sequence);
  return logits;
}

inline std::unique_ptr<engine::Runtime> start(const EngineOptions& options) {
  return must(engine::Runtime::start(must(engine::draw_up(options))));
}

}  // namespace sluice::test
