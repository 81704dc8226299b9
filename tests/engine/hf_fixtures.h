// Tiny random models with their logits from Hugging Face transformers in float64
// (tests/reference/make_llama_fixtures.py, make_gemma3_fixtures.py).
#pragma once

#include <cmath>
#include <cstring>

#include "tests/engine/engine_rig.h"

namespace sluice::test {

inline const char* const fixture_models[] = {"llama_bias",        "llama_gqa_tied",  "llama_head_dim",
                                             "llama_llama3_bf16", "llama_mha",       "llama_mqa_f16",
                                             "gemma3_window",     "gemma3_defaults", "gemma3_scaled_bf16"};

struct Fixture {
  explicit Fixture(const std::string& name) {
    const auto json = read_json(fixture(name + ".json"));
    path = fixture(json.at("model"));
    vocab = json.at("vocab");
    sequences = json.at("sequences").get<std::vector<std::vector<int32_t>>>();
    for (const auto& ids : sequences) longest = std::max(longest, static_cast<uint32_t>(ids.size()));
    kept = json.value("kept", longest);
    std::ifstream file(fixture(json.at("logits")), std::ios::binary);
    std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
    logits.resize(bytes.size() / 4);
    std::memcpy(logits.data(), bytes.data(), logits.size() * 4);
  }
  std::string path;
  uint32_t vocab, longest = 0;
  size_t kept;  // at most so many rows of logits, the last ones, of each sequence
  std::vector<std::vector<int32_t>> sequences;
  std::vector<float> logits;
};

inline EngineOptions options_of(const Fixture& f, Precision precision, uint64_t ram = 64 * MiB) {
  EngineOptions options = options_for(f.path, ram);
  options.context = std::max(96u, f.longest);
  options.logit_rows = options.batch = options.context;
  options.precision = precision;
  return options;
}

// The largest distance of a row, relative to that row's size.
inline double worst_distance(const std::vector<float>& got, const float* want, uint32_t vocab) {
  double worst = 0;
  for (size_t row = 0; row < got.size() / vocab; ++row) {
    double scale = 0, distance = 0;
    for (uint32_t v = 0; v < vocab; ++v) {
      const double w = want[row * vocab + v];
      scale = std::max(scale, std::abs(w));
      distance = std::max(distance, std::abs(got[row * vocab + v] - w));
    }
    worst = std::max(worst, distance / scale);
  }
  return worst;
}

inline double worst_distance(engine::Runtime& runtime, const Fixture& f, size_t step) {
  const float* want = f.logits.data();
  double worst = 0;
  for (const auto& ids : f.sequences) {
    const auto got = all_logits(runtime, ids, step);
    REQUIRE(got.size() == ids.size() * f.vocab);
    const std::vector<float> last(got.end() - static_cast<long>(std::min(f.kept, ids.size()) * f.vocab), got.end());
    worst = std::max(worst, worst_distance(last, want, f.vocab));
    want += last.size();
  }
  CHECK(want == f.logits.data() + f.logits.size());
  return worst;
}

}  // namespace sluice::test
