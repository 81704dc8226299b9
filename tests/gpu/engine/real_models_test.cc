// The real models wholly on a GPU: a few tokens, as near to exact ones as the CPU's.
#include "tests/gpu/engine/gpu_engine_rig.h"

namespace sluice::test {

namespace {

int flips(const std::vector<float>& got, const std::vector<float>& want, uint32_t vocab) {
  const auto best = [vocab](const std::vector<float>& v, size_t row) {
    const auto begin = v.begin() + static_cast<long>(row * vocab);
    return std::max_element(begin, begin + vocab) - begin;
  };
  int n = 0;
  for (size_t row = 0; row < want.size() / vocab; ++row) n += best(got, row) != best(want, row);
  return n;
}

}  // namespace

TEST_SUITE("exactness") {
  TEST_CASE("gpu engine: SmolLM2 and Gemma wholly on the GPU") {
    const std::vector<std::tuple<const char*, const char*, const char*>> models = {
        {"SLUICE_MODEL", "SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2"},
        {"SLUICE_MODEL_GEMMA3", "gemma-3-270m.Q4_K_M.gguf", "gemma3"}};
    for (const auto& [variable, file, name] : models) {
      const std::string path = fetched_model(variable, file);
      if (path.empty()) {
        MESSAGE("skipped: no ", file, " here; scripts/fetch-model gets it");
        continue;
      }
      CAPTURE(name);
      EngineOptions options = options_for(path, 1 * GiB);
      options.context = 64;
      options.batch = 8;
      options.logit_rows = 8;
      const auto sequences = read_json(fixture(std::string(name) + "_exact.json")).at("sequences");
      const auto all = sequences.front().at("ids").get<std::vector<int32_t>>();
      const std::vector<int32_t> ids(all.begin(), all.begin() + 8);
      EngineOptions exact = options;
      exact.precision = Precision::f32;
      const auto want = all_logits(*start(exact), ids, 8), fast = all_logits(*start(options), ids, 8);
      GpuEngineOptions o;
      o.device.device_bytes = 2ull << 30;
      const GpuEngine engine(options, o);
      const uint32_t vocab = engine.runtime->graph().n_vocab;
      const auto got = all_logits(*engine.runtime, ids, 8);
      CHECK(worst_distance(got, want.data(), vocab) < 1.25 * worst_distance(fast, want.data(), vocab));
      // Where two tokens are nearly as likely either may be best.
      CHECK(flips(got, want, vocab) <= flips(fast, want, vocab) + 1);
    }
  }
}

}  // namespace sluice::test
