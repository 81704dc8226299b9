// SmolLM2-135M-Instruct against exact runs of llama.cpp (tests/reference/make_smollm2_reference.py), and
// what holds whatever the budget.
#include <algorithm>
#include <cmath>

#include "engine/system.h"
#include "tests/engine/engine_rig.h"

using namespace sluice;
using namespace sluice::test;

namespace {

#define NEEDS_MODEL()                                                 \
  const std::string model = real_model();                             \
  if (model.empty()) {                                                \
    MESSAGE("skipped: no SmolLM2 here; scripts/fetch-model gets it"); \
    return;                                                           \
  }

// How far a run is from the exact one.
struct Distance {
  size_t positions = 0, flips = 0, flips_at_margin = 0;  // the latter where the exact margin exceeds 0.02
  double largest_flipped_margin = 0, median = 0, p99 = 0;
};

Distance distance_to_exact(Engine& engine) {
  const auto exact = read_json(fixture("smollm2_exact.json"));
  Distance d;
  std::vector<double> deltas;
  for (const auto& sequence : exact.at("sequences")) {
    auto session = must(engine.new_session());
    const auto scores = must(session->score(sequence.at("ids").get<std::vector<int32_t>>(), 1));
    REQUIRE(scores.size() == sequence.at("logprob").size());
    for (size_t i = 0; i < scores.size(); ++i, ++d.positions) {
      const double margin = sequence.at("margin")[i];
      deltas.push_back(std::abs(scores[i].logprob - sequence.at("logprob")[i].get<double>()));
      if (scores[i].argmax == sequence.at("argmax")[i].get<int32_t>()) continue;
      ++d.flips;
      d.flips_at_margin += margin > 0.02;
      d.largest_flipped_margin = std::max(d.largest_flipped_margin, margin);
    }
  }
  std::sort(deltas.begin(), deltas.end());
  d.median = deltas[deltas.size() / 2];
  d.p99 = deltas[deltas.size() * 99 / 100];
  return d;
}

// llama.cpp's convention: windows of 512, the tokens 257 to 511 of each scored; this model has no BOS.
double perplexity(Engine& engine, size_t n_windows) {
  std::ifstream file(fixture("ppl_text.txt"));
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const auto ids = must(engine.tokenize(text, true));
  double sum = 0;
  size_t n = 0;
  for (size_t w = 0; w < n_windows; ++w) {
    auto session = must(engine.new_session());
    const std::vector<int32_t> window(ids.begin() + static_cast<long>(w * 512),
                                      ids.begin() + static_cast<long>(w * 512 + 512));
    for (const TokenScore& score : must(session->score(window, 257))) {
      sum -= score.logprob;
      ++n;
    }
  }
  return std::exp(sum / static_cast<double>(n));
}

EngineOptions smollm2(const std::string& model, uint64_t ram) {
  EngineOptions options = options_for(model, ram);
  options.context = 512;
  options.logit_rows = 64;
  return options;
}

std::vector<int32_t> greedy(Engine& engine, const std::string& prompt, int64_t n) {
  auto session = must(engine.new_session());
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.max_tokens = n;
  return must(session->generate(must(engine.tokenize(prompt, true)), options)).tokens;
}

}  // namespace

TEST_SUITE_BEGIN("exactness");

TEST_CASE("SmolLM2 in F32 has the argmax of llama.cpp's exact run wherever the margin exceeds 0.02") {
  NEEDS_MODEL();
  EngineOptions options = smollm2(model, 1 * GiB);
  options.precision = Precision::f32;
  const Distance d = distance_to_exact(*open(options));
  MESSAGE("f32: ", d.positions, " positions, ", d.flips, " flips, median ", d.median, ", p99 ", d.p99);
  CHECK(d.positions >= 1000);
  CHECK(d.flips_at_margin == 0);
  CHECK(d.median < 1e-3);
}

TEST_CASE("SmolLM2's fast path is no further from exact than llama.cpp's") {
  NEEDS_MODEL();
  const auto peer = read_json(fixture("smollm2_exact.json")).at("fast");
  const Distance d = distance_to_exact(*open(smollm2(model, 1 * GiB)));
  MESSAGE("fast: ", d.positions, " positions, ", d.flips, " flips up to margin ", d.largest_flipped_margin, ", median ",
          d.median, ", p99 ", d.p99);
  CHECK(d.flips <= 1.1 * peer.at("flips").get<double>());
  CHECK(d.largest_flipped_margin <= 0.6);
  CHECK(d.median <= 1.1 * peer.at("median_dlogprob").get<double>());
  CHECK(d.p99 <= 1.1 * peer.at("p99_dlogprob").get<double>());
}

TEST_CASE("SmolLM2's perplexity") {
  NEEDS_MODEL();
  const auto want = read_json(fixture("smollm2_ppl.json"));
  const double exact = want.at("exact_ppl"), peer = want.at("quantized_ppl");
  EngineOptions options = smollm2(model, 1 * GiB);
  const double fast = perplexity(*open(options), want.at("chunks"));
  options.precision = Precision::f32;
  const double f32 = perplexity(*open(options), want.at("chunks"));
  MESSAGE("exact ", exact, ", ours f32 ", f32, ", fast ", fast, ", llama.cpp fast ", peer);
  CHECK(std::abs(f32 / exact - 1) < 0.0005);
  CHECK(fast / exact < peer / exact + 0.002);
}

TEST_SUITE_END();

TEST_CASE("SmolLM2 gives the same tokens resident, streamed, and with KV on disk") {
  NEEDS_MODEL();
  const std::string prompt = "Once upon a time, in a village by the sea, there lived";
  const auto want = greedy(*open(smollm2(model, 1 * GiB)), prompt, 24);
  REQUIRE(want.size() == 24);
  for (const uint64_t ram : {48 * MiB, 64 * MiB, 100 * MiB})
    for (const uint32_t threads : {1u, 2u}) {
      EngineOptions options = smollm2(model, ram);
      options.threads = threads;
      auto engine = open(options);
      CHECK(greedy(*engine, prompt, 24) == want);
      CHECK(engine->memory().ram_peak <= ram);
    }
}

TEST_CASE("bytes read from disk for a token are the model's bytes that do not stay") {
  NEEDS_MODEL();
  for (const uint64_t ram : {48 * MiB, 64 * MiB, 100 * MiB}) {
    EngineOptions options = smollm2(model, ram);
    options.load = Load::direct;
    auto engine = open(options);
    auto session = must(engine->new_session());
    REQUIRE(session->append(must(engine->tokenize("Hello", true))).ok());
    const auto disk = [&] { return static_cast<double>(engine->memory().disk_bytes_read); };
    const double before = disk();
    constexpr int n = 20;
    for (int i = 0; i < n; ++i) REQUIRE(session->append(std::vector<int32_t>{1000 + i}).ok());
    const double per_token = (disk() - before) / n;
    const double expected = static_cast<double>(engine->plan_report().disk_bytes_per_token);
    CHECK(std::abs(per_token / expected - 1) < 0.02);
    // What the plan says is itself the matrices' bytes less those that stay.
    uint64_t touched = 0, resident = 0;
    for (const LayerReport& layer : engine->plan_report().layers) {
      if (layer.name == "embed") continue;  // tied to the head, and gathered by rows
      for (const PlacementReport& t : layer.tensors) {
        touched += t.bytes_resident + t.bytes_streamed;
        resident += t.bytes_resident;
      }
    }
    CHECK(std::abs(per_token / static_cast<double>(touched - resident) - 1) < 0.02);
  }
}
