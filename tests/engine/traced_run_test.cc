// What a traced run tells of itself, while the engine is open and in the file.
#include <cstdlib>

#include "tests/engine/engine_rig.h"

namespace sluice::test {
namespace {

// A directory of its own, gone at the end.
class Directory {
 public:
  Directory() {
    std::string name = "/var/tmp/sluice-trace-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~Directory() { std::filesystem::remove_all(path_); }
  std::string operator/(const char* name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

EngineOptions traced(const std::string& file) {
  EngineOptions options = options_for(fixture("llama_mha.gguf"), 64 * MiB);
  options.context = 64;
  options.batch = 32;
  options.load = Load::direct;
  options.trace_file = file;
  return options;
}

Generation generate(Engine& engine) {
  const auto session = must(engine.new_session());
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < 20; ++i) prompt.push_back(i + 3);
  GenerateOptions options;
  options.max_tokens = 8;
  options.ignore_end = true;
  return must(session->generate(prompt, options, {}));
}

const PeriodReport& period(const StallReport& report, const std::string& name) {
  for (const PeriodReport& p : report.periods)
    if (p.name == name) return p;
  FAIL("no period " << name);
  return report.periods.front();
}

}  // namespace

TEST_CASE("a traced run: causes add up to the time of its steps") {
  const Directory directory;
  const auto engine = open(traced(directory / "t.json"));
  const Generation done = generate(*engine);
  const StallReport report = engine->stalls();
  CHECK(report.dropped_spans == 0);
  CHECK(period(report, "load").steps == 0);
  CHECK(period(report, "prompt").steps == 1);
  CHECK(period(report, "decode").steps == 8);
  for (const PeriodReport& p : report.periods) {
    CAPTURE(p.name);
    CHECK(p.seconds > 0);
    CHECK(p.computing_s + p.disk_s + p.link_s + p.host_s + p.between_s == doctest::Approx(p.seconds));
    CHECK(p.link_s == 0);
    for (const LaneReport& lane : p.lanes) {
      CHECK(lane.busy_s <= p.seconds);
      if (lane.name == "cpu") CHECK(lane.busy_s == doctest::Approx(p.computing_s));
    }
  }
  CHECK(period(report, "decode").computing_s > 0);
  const double steps = period(report, "prompt").seconds + period(report, "decode").seconds;
  CHECK(steps <= done.prefill_s + done.decode_s + 1e-3);
  CHECK(steps >= 0.5 * (done.prefill_s + done.decode_s));
}

TEST_CASE("a traced run: the file tells the same, beside the spans") {
  const Directory directory;
  StallReport report;
  {
    const auto engine = open(traced(directory / "t.json"));
    generate(*engine);
    report = engine->stalls();
  }
  const auto file = read_json(directory / "t.json");
  const auto& other = file.at("otherData");
  CHECK(other.at("dropped_spans") == 0);
  const auto& decode = other.at("decode");
  CHECK(decode.at("steps") == 8);
  CHECK(decode.at("seconds").get<double>() == doctest::Approx(period(report, "decode").seconds).epsilon(0.01));
  double sum = 0;
  for (const char* cause : {"computing", "waiting for disk", "waiting for link", "host", "between steps"})
    sum += decode.at(cause).get<double>();
  CHECK(sum == doctest::Approx(decode.at("seconds").get<double>()).epsilon(0.01));
  CHECK(decode.at("cpu busy").get<double>() > 0);
  size_t steps = 0;
  for (const auto& event : file.at("traceEvents")) steps += event.at("name") == "decode";
  CHECK(steps == 8);
}

TEST_CASE("without a trace nothing is said of where the time went") {
  const auto engine = open(traced(""));
  generate(*engine);
  CHECK(engine->stalls().periods.empty());
  CHECK(engine->stalls().dropped_spans == 0);
}

}  // namespace sluice::test
