// What a model generates from the best tokens of each step is what it generates from all logits.
#include "tests/engine/sampling_rig.h"

using namespace sluice;
using namespace sluice::test;

namespace {

EngineOptions some_model() {
  EngineOptions options = options_for(fixture("llama_gqa_tied.gguf"), 64 * MiB);
  options.context = 64;
  return options;
}

}  // namespace

TEST_CASE("sampling: the best tokens and all logits give the same text") {
  const auto runtime = start(some_model());
  for (const engine::SamplerOptions& o : kinds_of_sampling()) {
    CAPTURE(o.seed);
    const auto want = generated(*runtime, o, {1, 2, 3}, 40, From::logits);
    CHECK(generated(*runtime, o, {1, 2, 3}, 40, From::best) == want);
  }
}

TEST_CASE("sampling: a session generates what its sampler draws from all logits") {
  const auto runtime = start(some_model());
  const auto engine = open(some_model());
  for (const engine::SamplerOptions& o : kinds_of_sampling()) {
    CAPTURE(o.seed);
    GenerateOptions options;
    options.sampling = {o.temperature, o.top_k, o.top_p, o.min_p, o.repeat_penalty, o.repeat_last_n, o.seed};
    options.max_tokens = 40;
    options.ignore_end = true;
    const auto session = must(engine->new_session());
    const auto want = generated(*runtime, o, {1, 2, 3}, 40, From::logits);
    CHECK(must(session->generate(std::vector<int32_t>{1, 2, 3}, options)).tokens == want);
  }
}
