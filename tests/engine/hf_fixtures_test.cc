// Whole-model logits of tiny random models against Hugging Face transformers in float64.
#include "tests/engine/hf_fixtures.h"

using namespace sluice;
using namespace sluice::test;

TEST_CASE("logits in F32 equal Hugging Face's within 1e-4, whole and in small batches") {
  for (const char* name : fixture_models) {
    CAPTURE(name);
    const Fixture f(name);
    auto runtime = start(options_of(f, Precision::f32));
    CHECK(worst_distance(*runtime, f, f.longest) < 1e-4);
    CHECK(worst_distance(*runtime, f, 7) < 1e-4);
    CHECK(worst_distance(*runtime, f, 1) < 1e-4);
  }
}

TEST_CASE("the fast path stays near the reference") {
  for (const char* name : fixture_models) {
    CAPTURE(name);
    const Fixture f(name);
    auto runtime = start(options_of(f, Precision::fast));
    CHECK(worst_distance(*runtime, f, f.longest) < 5e-3);  // F16 KV is all that differs for float weights
  }
}

TEST_CASE("bits do not depend on batches, threads, load or budget") {
  for (const char* name : fixture_models) {
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
