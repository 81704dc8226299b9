// Whole-model logits of tiny random models against Hugging Face transformers in float64
// (tests/reference/make_llama_fixtures.py, make_gemma3_fixtures.py).
#include <cmath>
#include <cstring>

#include "tests/engine/engine_rig.h"

using namespace sluice;
using namespace sluice::test;

namespace {

const char* const models[] = {"llama_bias",    "llama_gqa_tied", "llama_head_dim",  "llama_llama3_bf16", "llama_mha",
                              "llama_mqa_f16", "gemma3_window",  "gemma3_defaults", "gemma3_scaled_bf16"};

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

EngineOptions options_of(const Fixture& f, Precision precision, uint64_t ram = 64 * MiB) {
  EngineOptions options = options_for(f.path, ram);
  options.context = std::max(96u, f.longest);
  options.logit_rows = options.batch = options.context;
  options.precision = precision;
  return options;
}

// The largest distance of a row, relative to that row's size.
double worst_distance(const std::vector<float>& got, const float* want, uint32_t vocab) {
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

double worst_distance(engine::Runtime& runtime, const Fixture& f, size_t step) {
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

}  // namespace

TEST_CASE("logits in F32 equal Hugging Face's within 1e-4, whole and in small batches") {
  for (const char* name : models) {
    CAPTURE(name);
    const Fixture f(name);
    auto runtime = start(options_of(f, Precision::f32));
    CHECK(worst_distance(*runtime, f, f.longest) < 1e-4);
    CHECK(worst_distance(*runtime, f, 7) < 1e-4);
    CHECK(worst_distance(*runtime, f, 1) < 1e-4);
  }
}

TEST_CASE("the fast path stays near the reference") {
  for (const char* name : models) {
    CAPTURE(name);
    const Fixture f(name);
    auto runtime = start(options_of(f, Precision::fast));
    CHECK(worst_distance(*runtime, f, f.longest) < 5e-3);  // F16 KV is all that differs for float weights
  }
}

TEST_CASE("bits do not depend on batches, threads, load or budget") {
  for (const char* name : models) {
    CAPTURE(name);
    const Fixture f(name);
    const auto& ids = f.sequences.back();
    const auto want = all_logits(*start(options_of(f, Precision::fast)), ids, 96);
    for (const uint32_t threads : {1u, 2u, 3u})
      for (const Load load : {Load::automatic, Load::direct, Load::buffered}) {
        EngineOptions options = options_of(f, Precision::fast);
        options.threads = threads;
        options.load = load;
        CHECK(all_logits(*start(options), ids, threads == 2 ? 5 : 96) == want);
      }
    EngineOptions tight = options_of(f, Precision::fast, 0);
    tight.ram = 1;
    const auto refused = engine::draw_up(tight);
    REQUIRE(!refused.ok());
    CHECK(refused.status().code() == Code::over_budget);
    const std::string& message = refused.status().message();
    tight.ram = std::stoull(message.substr(message.find("works is --ram ") + 15)) * MiB;
    CHECK(all_logits(*start(tight), ids, 16) == want);
  }
}
