// What a traced run tells of a GPU: the rates of its memory and of the link, and what was waited for.
#include <cstdlib>

#include "engine/report.h"
#include "tests/gpu/engine/gpu_engine_rig.h"

namespace sluice::test {
namespace {

// A third of the GPU's weights come over the link in each step.
struct Traced {
  StallReport stalls;
  std::vector<TierReport> tiers;
};
Traced run(const std::string& file) {
  EngineOptions options = options_for(fixture("llama_bias.gguf"), 64 * MiB);
  options.context = 48;
  options.batch = options.logit_rows = 16;
  options.trace_file = file;
  GpuEngineOptions o;
  o.resident = 0.6;
  o.host_resident = 1;
  const GpuEngine engine(options, o);
  all_logits(*engine.runtime, {1, 2, 3, 4, 5, 6, 7, 8}, 1);
  return {engine::report_stalls(*engine.runtime), engine::report_tiers(*engine.runtime)};
}

const TierReport& tier(const Traced& traced, const std::string& name) {
  for (const TierReport& t : traced.tiers)
    if (t.name == name) return t;
  FAIL("no tier " << name);
  return traced.tiers.front();
}

}  // namespace

TEST_CASE("gpu engine: a trace has the rates of the GPU's memory and of the link") {
  std::string directory = "/var/tmp/sluice-trace-XXXXXX";
  REQUIRE(::mkdtemp(directory.data()) != nullptr);
  const Traced traced = run(directory + "/t.json");
  CHECK(std::filesystem::exists(directory + "/t.json"));
  std::filesystem::remove_all(directory);

  CHECK(tier(traced, "vram").bytes_read > 0);
  CHECK(tier(traced, "vram").gb_s > 0);
  CHECK(tier(traced, "pcie").bytes_read > 0);
  CHECK(tier(traced, "pcie").gb_s > 0);

  REQUIRE(!traced.stalls.periods.empty());
  const PeriodReport& decode = traced.stalls.periods.back();
  CHECK(decode.name == "decode");
  CHECK(decode.steps == 8);
  CHECK(decode.computing_s + decode.disk_s + decode.link_s + decode.host_s + decode.between_s ==
        doctest::Approx(decode.seconds));
  uint64_t kernels = 0, copies = 0;
  for (const LaneReport& lane : decode.lanes) {
    if (lane.name == "gpu 0") kernels = lane.bytes;
    if (lane.name == "gpu 0 h2d") copies = lane.bytes;
    CHECK(lane.busy_s <= decode.seconds * (1 + 1e-9));
  }
  CHECK(kernels > 0);
  CHECK(copies > 0);
  CHECK(copies <= tier(traced, "pcie").bytes_read);
}

TEST_CASE("gpu engine: without a trace the rates are not known") {
  const Traced traced = run("");
  CHECK(traced.stalls.periods.empty());
  CHECK(tier(traced, "vram").gb_s == 0);
  CHECK(tier(traced, "pcie").gb_s == 0);
  CHECK(tier(traced, "pcie").bytes_read > 0);
}

}  // namespace sluice::test
