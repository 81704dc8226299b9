// Sampling where a GPU chooses the best tokens, in steps that are recorded and in others.
#include "tests/engine/sampling_rig.h"
#include "tests/gpu/engine/gpu_engine_rig.h"

namespace sluice::test {

TEST_CASE("gpu engine: a seed gives the same tokens from the best that the GPU finds as from all logits") {
  for (const bool recorded : {true, false}) {
    CAPTURE(recorded);
    const Fixture f("llama_gqa_tied");
    GpuEngineOptions o;
    o.resident = recorded ? 1 : 0.5;  // what streams is not recorded
    o.host_resident = recorded ? 0 : 1;
    const GpuEngine engine(options_of(f, Precision::fast), o);
    for (const engine::SamplerOptions& sampling : kinds_of_sampling()) {
      CAPTURE(sampling.seed);
      const auto want = generated(*engine.runtime, sampling, {1, 2, 3}, 12, From::logits);
      CHECK(generated(*engine.runtime, sampling, {1, 2, 3}, 12, From::best) == want);
    }
  }
}

}  // namespace sluice::test
