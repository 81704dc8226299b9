// Whole models on the stand-in: their logits, wherever ops are computed and weights lie.
#include "tests/gpu/engine/gpu_engine_rig.h"

namespace sluice::test {
namespace {

constexpr double f32_tolerance = 1e-4;

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Sanitizers look at a few.
std::vector<const char*> some_models() {
  if (std::string(SLUICE_SANITIZE).empty()) return {std::begin(fixture_models), std::end(fixture_models)};
  return {"llama_bias", "gemma3_window"};
}

// Whether to decode it token by token, which takes the stand-in long: gemma3_window goes past its window, too.
bool one_by_one([[maybe_unused]] const Fixture& f) {
#ifdef SLUICE_REAL_GPU
  return true;
#else
  return f.longest <= 128;
#endif
}

}  // namespace

TEST_CASE("gpu engine: logits in F32 equal Hugging Face's within 1e-4") {
  for (const char* name : some_models()) {
    CAPTURE(name);
    const Fixture f(name);
    const GpuEngine engine(options_of(f, Precision::f32), {});
    CHECK(worst_distance(*engine.runtime, f, f.longest) < f32_tolerance);
    CHECK(worst_distance(*engine.runtime, f, 7) < f32_tolerance);
    if (one_by_one(f)) CHECK(worst_distance(*engine.runtime, f, 1) < f32_tolerance);
  }
}

TEST_CASE("gpu engine: the fast path is no further from exact than the CPU's, by half as much again") {
  for (const char* name : some_models()) {
    CAPTURE(name);
    const Fixture f(name);
    const double cpu = worst_distance(*start(options_of(f, Precision::fast)), f, f.longest);
    const GpuEngine engine(options_of(f, Precision::fast), {});
    CHECK(worst_distance(*engine.runtime, f, f.longest) < 1.5 * cpu);
    if (one_by_one(f)) CHECK(worst_distance(*engine.runtime, f, 1) < 1.5 * cpu);
  }
}

TEST_CASE("gpu engine: resident, streamed from the host and streamed from disk give the same bits") {
  for (const char* name : {"llama_gqa_tied", "gemma3_window"}) {
    CAPTURE(name);
    const Fixture f(name);
    const auto& ids = f.sequences.front();
    const auto bits = [&](double host, double there, size_t step) {
      GpuEngineOptions o;
      o.host_resident = host;
      o.resident = there;
      const GpuEngine engine(options_of(f, Precision::fast), o);
      return all_logits(*engine.runtime, ids, step);
    };
    const auto want = bits(0, 1, 7);
    CHECK(same_bits(bits(1, 0, 7), want));
    CHECK(same_bits(bits(0, 0, 7), want));
    CHECK(same_bits(bits(0.5, 0.3, 7), want));
    CHECK(same_bits(bits(0.5, 0.3, 3), want));  // decoding, however it is cut
  }
}

TEST_CASE("gpu engine: weights that give way to large steps leave the bits as they are") {
  const Fixture f("llama_gqa_tied");
  const auto& ids = f.sequences.front();
  const auto bits = [&](uint32_t small_step, double resident) {
    GpuEngineOptions o;
    o.small_step = small_step;
    o.resident = resident;
    o.host_resident = 1;
    const GpuEngine engine(options_of(f, Precision::fast), o);
    const auto& lent = engine.runtime->plan().movement.sites[1].lent;
    CHECK((std::count(lent.begin(), lent.end(), true) > 0) == (small_step > 0));
    std::vector<float> all;
    for (const size_t step : {7u, 1u, 5u, 3u}) {  // from large steps to small ones, and back
      const auto some = all_logits(*engine.runtime, ids, step);
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  };
  const auto want = bits(0, 1);
  CHECK(same_bits(bits(4, 1), want));
  CHECK(same_bits(bits(4, 0.6), want));
}

TEST_CASE("gpu engine: work split between CPU and GPU") {
  const Fixture f("llama_mha");
  const std::vector<std::function<bool(size_t, bool)>> placements = {
      [](size_t i, bool) { return i % 2 == 0; },  [](size_t i, bool) { return i % 3 != 0; },
      [](size_t i, bool) { return i < 4; },       [](size_t i, bool) { return i >= 4; },
      [](size_t, bool prompt) { return prompt; },
  };
  for (size_t p = 0; p < placements.size(); ++p) {
    CAPTURE(p);
    GpuEngineOptions o;
    o.placed = placements[p];
    o.resident = o.host_resident = 0.5;
    const GpuEngine engine(options_of(f, Precision::f32), o);
    CHECK(worst_distance(*engine.runtime, f, f.longest) < f32_tolerance);
    CHECK(worst_distance(*engine.runtime, f, 2) < f32_tolerance);
  }
}

TEST_CASE("gpu engine: FFNs whose rows CPU and GPU divide") {
  const Fixture f("llama_mha");  // 40 rows
  for (const uint32_t row : {16u, 32u})
    for (const bool at_gpu : {true, false})
      for (const double resident : {1.0, 0.4}) {
        CAPTURE(row);
        CAPTURE(at_gpu);
        CAPTURE(resident);
        GpuEngineOptions o;
        o.placed = [at_gpu](size_t i, bool) { return at_gpu || i % 4 != 0; };
        o.split = [row](size_t i, bool prompt) { return prompt && i > 4 ? 0 : row; };
        o.resident = o.host_resident = resident;
        const GpuEngine engine(options_of(f, Precision::f32), o);
        CHECK(engine.runtime->plan().numerics.decode.split(4).row == row);
        CHECK(worst_distance(*engine.runtime, f, f.longest) < f32_tolerance);
        CHECK(worst_distance(*engine.runtime, f, 16) < f32_tolerance);
        CHECK(worst_distance(*engine.runtime, f, 1) < f32_tolerance);
      }
}

TEST_CASE("gpu engine: attention that CPU and GPU divide by pages, and the GPU merges") {
  const Fixture f("gemma3_window");
  REQUIRE(f.longest > 64);  // a page
  GpuEngineOptions o;
  o.near_pages = 1;
  const GpuEngine engine(options_of(f, Precision::f32), o);
  REQUIRE(engine.runtime->plan().numerics.near_pages == 1);
  CHECK(worst_distance(*engine.runtime, f, f.longest) < f32_tolerance);
  CHECK(worst_distance(*engine.runtime, f, 16) < f32_tolerance);
  if (one_by_one(f)) CHECK(worst_distance(*engine.runtime, f, 1) < f32_tolerance);
}

TEST_CASE("gpu engine: attention divided by pages has the same bits however a text is fed") {
  const Fixture f("gemma3_window");
  std::vector<int32_t> ids = f.sequences.front();
  ids.resize(std::min<size_t>(ids.size(), 80));
  GpuEngineOptions o;
  o.near_pages = 1;
  const GpuEngine engine(options_of(f, Precision::fast), o);
  const auto want = all_logits(*engine.runtime, ids, 16);
  for (const size_t step : {3u, 7u}) CHECK(same_bits(all_logits(*engine.runtime, ids, step), want));
}

TEST_CASE("gpu engine: divided rows have the same bits for one token and for several") {
  const Fixture f("gemma3_window");
  const auto& ids = f.sequences.front();
  GpuEngineOptions o;
  o.split = [](size_t, bool) { return 16u; };
  o.host_resident = 1;
  const GpuEngine engine(options_of(f, Precision::fast), o);
  REQUIRE(engine.runtime->plan().numerics.decode.split(4).row == 16);
  const auto want = all_logits(*engine.runtime, ids, 1);
  for (const size_t step : {2u, 7u, 16u}) CHECK(same_bits(all_logits(*engine.runtime, ids, step), want));
}

}  // namespace sluice::test
