// Whole-model logits of tiny random llama models against Hugging Face transformers in float64
// (tests/reference/make_llama_fixtures.py).
#include <cmath>
#include <cstring>

#include "tests/engine/engine_rig.h"

using namespace sluice;
using namespace sluice::test;

namespace {

const char* const models[] = {"bias", "gqa_tied", "head_dim", "llama3_bf16", "mha", "mqa_f16"};

struct Fixture {
  explicit Fixture(const std::string& name) {
    const auto json = read_json(fixture("llama_" + name + ".json"));
    path = fixture(json.at("model"));
    vocab = json.at("vocab");
    sequences = json.at("sequences").get<std::vector<std::vector<int32_t>>>();
    std::ifstream file(fixture(json.at("logits")), std::ios::binary);
    std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
    logits.resize(bytes.size() / 4);
    std::memcpy(logits.data(), bytes.data(), logits.size() * 4);
  }
  std::string path;
  uint32_t vocab;
  std::vector<std::vector<int32_t>> sequences;
  std::vector<float> logits;
};

EngineOptions options_of(const Fixture& f, Precision precision, uint64_t ram = 64 * MiB) {
  EngineOptions options = options_for(f.path, ram);
  options.context = 96;
  options.logit_rows = 96;
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
    worst = std::max(worst, worst_distance(got, want, f.vocab));
    want += got.size();
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
    CHECK(worst_distance(*runtime, f, 96) < 1e-4);
    CHECK(worst_distance(*runtime, f, 7) < 1e-4);
    CHECK(worst_distance(*runtime, f, 1) < 1e-4);
  }
}

TEST_CASE("the fast path stays near the reference") {
  for (const char* name : models) {
    CAPTURE(name);
    const Fixture f(name);
    auto runtime = start(options_of(f, Precision::fast));
    CHECK(worst_distance(*runtime, f, 96) < 5e-3);  // F16 KV is all that differs for float weights
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
