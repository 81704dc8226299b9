// Real models against exact runs of llama.cpp (tests/reference/make_model_reference.py), and what holds
// whatever the budget.
#include <algorithm>
#include <cmath>
#include <string_view>

#include "engine/system.h"
#include "tests/engine/engine_rig.h"

using namespace sluice;
using namespace sluice::test;

namespace {

struct RealModel {
  std::string name;      // of its fixtures, and for scripts/fetch-model
  const char* variable;  // of the environment: where it is, if not in the cache
  const char* file;
  double flips;                     // of the argmax, at most so many times llama.cpp's
  std::vector<uint64_t> small_ram;  // budgets under which weights, or KV too, do not fit
};
const RealModel models[] = {
    {"smollm2", "SLUICE_MODEL", "SmolLM2-135M-Instruct.Q4_1.gguf", 1.1, {48 * MiB, 64 * MiB, 100 * MiB}},
    {"gemma3", "SLUICE_MODEL_GEMMA3", "gemma-3-270m.Q4_K_M.gguf", 1.4, {96 * MiB, 200 * MiB}}};

// Runs `test` with each model that is here.
template <class Test>
void with_models(const Test& test) {
  for (const RealModel& model : models) {
    const std::string path = fetched_model(model.variable, model.file);
    if (path.empty()) {
      MESSAGE("skipped: no ", model.file, " here; scripts/fetch-model gets it");
      continue;
    }
    CAPTURE(model.name);
    test(model, path);
  }
}

nlohmann::json reference(const RealModel& model, const char* what) {
  return read_json(fixture(model.name + "_" + what + ".json"));
}

// How far a run is from the exact one.
struct Distance {
  size_t positions = 0, flips = 0, flips_at_margin = 0;  // the latter where the exact margin exceeds 0.02
  double largest_flipped_margin = 0, median = 0, p99 = 0;
};

// Of the tokens that each sequence has entries for: the last ones.
Distance distance_to_exact(Engine& engine, const nlohmann::json& sequences) {
  Distance d;
  std::vector<double> deltas;
  for (const auto& sequence : sequences) {
    auto session = must(engine.new_session());
    const auto ids = sequence.at("ids").get<std::vector<int32_t>>();
    const size_t entries = sequence.at("logprob").size();
    const auto scores = must(session->score(ids, static_cast<uint32_t>(ids.size() - entries)));
    REQUIRE(scores.size() == entries);
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

// llama.cpp's convention: windows of 512, BOS in place of the first token where the model adds one, the tokens
// 257 to 511 of each scored.
double perplexity(Engine& engine, size_t n_windows) {
  std::ifstream file(fixture("ppl_text.txt"));
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const std::vector<int32_t> prefix = engine.prefix();
  std::vector<int32_t> ids = prefix;
  const auto text_ids = must(engine.tokenize(text, true));
  ids.insert(ids.end(), text_ids.begin(), text_ids.end());
  double sum = 0;
  size_t n = 0;
  for (size_t w = 0; w < n_windows; ++w) {
    auto session = must(engine.new_session());
    std::vector<int32_t> window(ids.begin() + static_cast<long>(w * 512),
                                ids.begin() + static_cast<long>(w * 512 + 512));
    std::copy(prefix.begin(), prefix.end(), window.begin());
    for (const TokenScore& score : must(session->score(window, 257))) {
      sum -= score.logprob;
      ++n;
    }
  }
  return std::exp(sum / static_cast<double>(n));
}

EngineOptions options_of(const std::string& path, uint64_t ram, uint32_t context = 512) {
  EngineOptions options = options_for(path, ram);
  options.context = context;
  options.logit_rows = 32;
  return options;
}

std::vector<int32_t> greedy(Engine& engine, const std::string& prompt, int64_t n) {
  auto session = must(engine.new_session());
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.max_tokens = n;
  return must(session->generate(must(engine.tokenize(prompt, true)), options)).tokens;
}

// Bytes read from disk for a token are the model's bytes that do not stay.
void check_bytes_per_token(const std::string& path, uint64_t ram) {
  EngineOptions options = options_of(path, ram);
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

}  // namespace

TEST_SUITE_BEGIN("exactness");

TEST_CASE("real models in F32 have the argmax of llama.cpp's exact run wherever the margin exceeds 0.02") {
  with_models([](const RealModel& model, const std::string& path) {
    EngineOptions options = options_of(path, 2 * GiB);
    options.precision = Precision::f32;
    const Distance d = distance_to_exact(*open(options), reference(model, "exact").at("sequences"));
    MESSAGE(model.name, " f32: ", d.positions, " positions, ", d.flips, " flips, median ", d.median, ", p99 ", d.p99);
    CHECK(d.positions >= 1000);
    CHECK(d.flips_at_margin == 0);
    CHECK(d.median < 1e-3);
  });
}

TEST_CASE("real models' fast path is no further from exact than llama.cpp's") {
  with_models([](const RealModel& model, const std::string& path) {
    const auto exact = reference(model, "exact");
    const auto& peer = exact.at("fast");
    const Distance d = distance_to_exact(*open(options_of(path, 2 * GiB)), exact.at("sequences"));
    MESSAGE(model.name, " fast: ", d.positions, " positions, ", d.flips, " flips up to margin ",
            d.largest_flipped_margin, ", median ", d.median, ", p99 ", d.p99);
    CHECK(d.flips <= model.flips * peer.at("flips").get<double>());
    CHECK(d.largest_flipped_margin <= 0.6);
    CHECK(d.median <= 1.1 * peer.at("median_dlogprob").get<double>());
    CHECK(d.p99 <= 1.1 * peer.at("p99_dlogprob").get<double>());
  });
}

// Each other way to multiply prompts that there is here. Blocks of 256 flip what llama.cpp's, as coarse, may flip.
void check_prompts(Prompts prompts, const std::string& name) {
  with_models([&](const RealModel& model, const std::string& path) {
    EngineOptions options = options_of(path, 2 * GiB);
    options.prompts = prompts;
    const auto engine = Engine::open(options);
    if (!engine.ok()) {
      CHECK(prompts == Prompts::bf16);
      CHECK(engine.status().message().find("oneDNN") != std::string::npos);
      MESSAGE("skipped: ", engine.status().message());
      return;
    }
    const auto exact = reference(model, "exact");
    const auto& peer = exact.at("fast");
    const Distance d = distance_to_exact(**engine, exact.at("sequences"));
    MESSAGE(model.name, " ", name, ": ", d.positions, " positions, ", d.flips, " flips up to margin ",
            d.largest_flipped_margin, ", median ", d.median, ", p99 ", d.p99);
    CHECK(d.flips <= model.flips * peer.at("flips").get<double>());
    const double peers_margin = 1.1 * peer.at("largest_flipped_margin").get<double>();
    CHECK(d.largest_flipped_margin <= (prompts == Prompts::wide8 ? std::max(0.6, peers_margin) : 0.6));
    CHECK(d.median <= 1.1 * peer.at("median_dlogprob").get<double>());
    CHECK(d.p99 <= 1.1 * peer.at("p99_dlogprob").get<double>());

    const auto ids = exact.at("sequences")[0].at("ids").get<std::vector<int32_t>>();
    const auto logprobs = [&](Engine& e) {
      std::vector<double> all;
      for (const TokenScore& s : must(must(e.new_session())->score(ids, 1))) all.push_back(s.logprob);
      return all;
    };
    const auto want = logprobs(**engine);
    for (const uint32_t batch : {17u, 100u}) {
      options.batch = batch;
      options.ram = batch == 17 ? 2 * GiB : model.small_ram.front();
      options.threads = batch == 17 ? 1 : 2;
      const auto other = open(options);
      CHECK(logprobs(*other) == want);
      CHECK(other->memory().ram_peak <= options.ram);
    }
  });
}

TEST_CASE("real models' prompts as bf16 are no further from exact, however they are cut and wherever weights are") {
  check_prompts(Prompts::bf16, "bf16");
}

TEST_CASE("real models' prompts as wide8 are no further from exact, however they are cut and wherever weights are") {
  check_prompts(Prompts::wide8, "wide8");
}

TEST_CASE("real models far behind their windows: llama.cpp's argmax, and Hugging Face's figures in float64") {
  with_models([](const RealModel& model, const std::string& path) {
    const auto exact = reference(model, "exact");
    if (!exact.contains("long")) return;  // no windows
    const auto llama = nlohmann::json::array({exact.at("long")});
    const auto transformers = nlohmann::json::array({reference(model, "long")});
    REQUIRE(transformers[0].at("ids").size() >= 1500);
    EngineOptions options = options_of(path, 2 * GiB, 1600);
    const Distance fast = distance_to_exact(*open(options), transformers);
    options.precision = Precision::f32;
    const auto engine = open(options);
    const Distance f32 = distance_to_exact(*engine, transformers), to_llama = distance_to_exact(*engine, llama);
    MESSAGE(model.name, " long: ", f32.positions, " positions; f32 median ", f32.median, ", p99 ", f32.p99,
            ", to llama.cpp ", to_llama.median, "; fast: ", fast.flips, " flips, median ", fast.median, ", p99 ",
            fast.p99);
    CHECK(f32.positions >= 50);
    CHECK(f32.flips == 0);
    CHECK(f32.median < 1e-4);
    CHECK(f32.p99 < 1e-3);
    CHECK(to_llama.flips_at_margin == 0);
    CHECK(to_llama.median < 1e-2);  // its rotary angles are products in F32
    CHECK(fast.largest_flipped_margin <= 0.6);
    CHECK(fast.median < 0.05);
  });
}

TEST_CASE("real models' perplexity") {
  with_models([](const RealModel& model, const std::string& path) {
    const auto want = reference(model, "ppl");
    const double exact = want.at("exact_ppl"), peer = want.at("quantized_ppl");
    EngineOptions options = options_of(path, 2 * GiB);
    const double fast = perplexity(*open(options), want.at("chunks"));
    options.precision = Precision::f32;
    const double f32 = perplexity(*open(options), want.at("chunks"));
    MESSAGE(model.name, ": exact ", exact, ", ours f32 ", f32, ", fast ", fast, ", llama.cpp fast ", peer);
    CHECK(std::abs(f32 / exact - 1) < 0.0005);
    CHECK(fast / exact < peer / exact + 0.002);
  });
}

TEST_SUITE_END();

namespace {

// Sanitizers, which take ten times as long, see some tokens of each way; the models of the fixtures they see whole.
bool sanitized() { return !std::string_view(SLUICE_SANITIZE).empty(); }

}  // namespace

TEST_CASE("real models give the same tokens resident, streamed, and with KV on disk") {
  with_models([](const RealModel& model, const std::string& path) {
    const std::string prompt = sanitized() ? "Once upon" : "Once upon a time, in a village by the sea, there lived";
    const uint32_t n = sanitized() ? 3 : 24;
    const auto want = greedy(*open(options_of(path, 2 * GiB)), prompt, n);
    REQUIRE(want.size() == n);
    for (const uint64_t ram : model.small_ram)
      for (const uint32_t threads : {1u, 2u}) {
        if (sanitized() && threads == 1) continue;
        EngineOptions options = options_of(path, ram);
        options.threads = threads;
        auto engine = open(options);
        CHECK(greedy(*engine, prompt, n) == want);
        CHECK(engine->memory().ram_peak <= ram);
      }
  });
}

TEST_CASE("bytes read from disk for a token are the model's bytes that do not stay" *
          doctest::test_suite("exactness")) {
  with_models([](const RealModel& model, const std::string& path) {
    for (const uint64_t ram : model.small_ram) check_bytes_per_token(path, ram);
  });
}
