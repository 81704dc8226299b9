// Where the time of hand-made traces went.
#include "engine/stalls.h"

#include <doctest/doctest.h>

#include <random>
#include <thread>
#include <vector>

namespace sluice::engine {
namespace {

constexpr uint64_t ms = 1'000'000;

// Of spans in milliseconds.
class Made : public Trace {
 public:
  explicit Made(std::initializer_list<TraceSpan> spans, size_t room = 100) : Trace(room) {
    for (TraceSpan span : spans) {
      span.start_ns *= ms;
      span.end_ns *= ms;
      record(span);
    }
  }
};

struct Want {
  double computing = 0, disk = 0, link = 0, host = 0, between = 0;  // ms
};

void check(const PeriodReport& got, const Want& want) {
  CAPTURE(got.name);
  const auto in_ms = [](double s) { return doctest::Approx(s * 1e3); };
  CHECK(in_ms(got.computing_s) == want.computing);
  CHECK(in_ms(got.disk_s) == want.disk);
  CHECK(in_ms(got.link_s) == want.link);
  CHECK(in_ms(got.host_s) == want.host);
  CHECK(in_ms(got.between_s) == want.between);
  CHECK(in_ms(got.seconds) == want.computing + want.disk + want.link + want.host + want.between);
}

double busy_ms(const PeriodReport& period, const std::string& lane) {
  for (const LaneReport& l : period.lanes)
    if (l.name == lane) return l.busy_s * 1e3;
  return 0;
}

}  // namespace

TEST_CASE("stalls: nothing was recorded") {
  CHECK(find_stalls(Trace(0)).periods.empty());
  CHECK(find_stalls(Trace(10)).periods.empty());
  CHECK(lane_gb_s(find_stalls(Trace(10)), "cpu") == 0);
  Trace full(0);
  full.record({"cpu", "matmul", 1, 2, 0, 0});
  CHECK(find_stalls(full).periods.empty());
  CHECK(find_stalls(full).dropped_spans == 1);
}

TEST_CASE("stalls: each cause of a step, and the time between steps") {
  const Made trace({{"step", "decode", 10, 30},
                    {"executor", "ffn", 10, 12},
                    {"disk", "read", 12, 17},
                    {"cpu", "matmul", 15, 20},
                    {"gpu 0 h2d", "work", 20, 23},
                    {"gpu 0", "work", 23, 29},
                    {"step", "decode", 34, 40}});
  const StallReport report = find_stalls(trace);
  REQUIRE(report.periods.size() == 1);
  const PeriodReport& decode = report.periods.front();
  CHECK(decode.name == "decode");
  CHECK(decode.steps == 2);
  check(decode, {.computing = 11, .disk = 3, .link = 3, .host = 2 + 1 + 6, .between = 4});
  CHECK(busy_ms(decode, "cpu") == doctest::Approx(5));
  CHECK(busy_ms(decode, "disk") == doctest::Approx(5));
  CHECK(busy_ms(decode, "gpu 0") == doctest::Approx(6));
  CHECK(busy_ms(decode, "gpu 0 h2d") == doctest::Approx(3));
  CHECK(decode.lanes.size() == 4);  // those of the driving thread are no lanes of a device
}

TEST_CASE("stalls: kernels come before waiting, the disk before the link") {
  const Made trace({{"step", "decode", 0, 100},
                    {"disk", "read", 0, 40},
                    {"gpu 0 d2h", "work", 20, 60},
                    {"pcie", "work", 55, 70},
                    {"gpu 0", "work", 10, 15},
                    {"cpu", "matmul", 12, 18},
                    {"cpu", "matmul", 65, 66}});
  const PeriodReport decode = find_stalls(trace).periods.at(0);
  check(decode, {.computing = 8 + 1, .disk = 40 - 8, .link = 30 - 1, .host = 30});
}

TEST_CASE("stalls: overlapping and nested spans of a lane count once") {
  const Made trace({{"step", "decode", 0, 50},
                    {"disk", "read", 0, 20},
                    {"disk", "read", 5, 10},
                    {"disk", "read", 15, 30},
                    {"disk", "write", 30, 30},
                    {"disk", "read", 30, 35}});
  const PeriodReport decode = find_stalls(trace).periods.at(0);
  check(decode, {.disk = 35, .host = 15});
  CHECK(busy_ms(decode, "disk") == doctest::Approx(35));
}

TEST_CASE("stalls: loading, prompts and decoding are told apart") {
  const Made trace({{"disk", "read", 100, 130},
                    {"gpu 0 h2d", "work", 120, 150},
                    {"step", "prompt", 160, 260},
                    {"cpu", "matmul", 170, 260},
                    {"disk", "read", 250, 275},  // ahead, while a token is sampled
                    {"step", "decode", 270, 280},
                    {"step", "prompt", 290, 300},
                    {"cpu", "matmul", 290, 300}});
  const StallReport report = find_stalls(trace);
  REQUIRE(report.periods.size() == 3);
  CHECK(report.periods[0].name == "load");
  CHECK(report.periods[0].steps == 0);
  check(report.periods[0], {.disk = 30, .link = 20, .between = 10});
  CHECK(report.periods[1].name == "prompt");
  CHECK(report.periods[1].steps == 2);
  check(report.periods[1], {.computing = 100, .host = 10, .between = 10});
  CHECK(busy_ms(report.periods[1], "disk") == doctest::Approx(20));
  CHECK(report.periods[2].name == "decode");
  CHECK(report.periods[2].steps == 1);
  check(report.periods[2], {.disk = 5, .host = 5, .between = 10});
}

TEST_CASE("stalls: what goes on behind the last step kept nobody waiting") {
  const Made trace({{"step", "decode", 0, 10},
                    {"cpu", "matmul", 0, 10},
                    {"disk", "read", 5, 25, 4000, 0},
                    {"disk", "read", 25, 30, 4000, 0}});
  const PeriodReport decode = find_stalls(trace).periods.at(0);
  check(decode, {.computing = 10});
  CHECK(busy_ms(decode, "disk") == doctest::Approx(5));
  CHECK(decode.lanes.at(1).bytes == 1000);  // of the quarter that lies in the step
}

TEST_CASE("stalls: a trace without steps ends with its last span") {
  const Made trace({{"disk", "read", 3, 8}, {"executor", "ffn", 10, 11}, {"cpu", "matmul", 12, 15}});
  const StallReport report = find_stalls(trace);
  REQUIRE(report.periods.size() == 1);
  CHECK(report.periods[0].name == "load");
  check(report.periods[0], {.computing = 3, .disk = 5, .host = 1, .between = 3});
}

TEST_CASE("stalls: a trace that was full is told as far as it goes") {
  const Made trace({{"cpu", "matmul", 0, 4},
                    {"step", "decode", 0, 5},
                    {"cpu", "matmul", 5, 9},
                    {"step", "decode", 5, 10},
                    {"cpu", "matmul", 10, 14}},
                   3);
  const StallReport report = find_stalls(trace);
  CHECK(report.dropped_spans == 2);
  REQUIRE(report.periods.size() == 1);
  CHECK(report.periods[0].steps == 1);
  check(report.periods[0], {.computing = 4, .host = 1});
}

TEST_CASE("stalls: rates are bytes over the time in which a lane was busy") {
  const Made trace({{"gpu 0 h2d", "work", 0, 10, 100 * ms, 0},
                    {"step", "decode", 10, 100},
                    {"gpu 0 h2d", "work", 20, 30, 300 * ms, 0},
                    {"gpu 0 h2d", "work", 25, 40, 400 * ms, 0},
                    {"gpu 0", "work", 40, 41, 5 * ms, 0}});
  const StallReport report = find_stalls(trace);
  REQUIRE(report.periods.size() == 2);
  REQUIRE(report.periods[1].lanes.size() == 2);
  CHECK(report.periods[0].lanes.at(0).gb_s == doctest::Approx(10));
  CHECK(report.periods[1].lanes[1].gb_s == doctest::Approx(35));
  CHECK(report.periods[1].lanes[1].bytes == 700 * ms);
  CHECK(lane_gb_s(report, "gpu 0 h2d") == doctest::Approx(800.0 / 30));
  CHECK(lane_gb_s(report, "gpu 0") == doctest::Approx(5));
  CHECK(lane_gb_s(report, "gpu 1") == 0);
}

// Against a look at each millisecond.
TEST_CASE("stalls: random traces, instant by instant") {
  const char* const lanes[] = {"cpu", "gpu 0", "gpu 0 h2d", "disk", "executor"};
  for (uint64_t seed = 0; seed < 50; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    std::vector<TraceSpan> spans = {{"step", "decode", 0, 40, 0, 0}, {"step", "decode", 50, 90, 0, 0}};
    for (int i = 0; i < 20; ++i) {
      const uint64_t start = random() % 90;
      spans.push_back({lanes[random() % 5], "", start, start + random() % 12, 0, 0});
    }
    Trace trace(100);
    Want want;
    for (uint64_t t = 0; t < 90; ++t) {
      const auto open = [&](std::string_view prefix) {
        for (const TraceSpan& s : spans)
          if (std::string_view(s.lane) == prefix && s.start_ns <= t && t < s.end_ns) return true;
        return false;
      };
      const bool step = open("step") || open("executor");
      double& cause = open("cpu") || open("gpu 0") ? want.computing
                      : step && open("disk")       ? want.disk
                      : step && open("gpu 0 h2d")  ? want.link
                      : step                       ? want.host
                                                   : want.between;
      ++cause;
    }
    for (TraceSpan s : spans) {
      s.start_ns *= ms, s.end_ns *= ms;
      trace.record(s);
    }
    check(find_stalls(trace).periods.at(0), want);
  }
}

}  // namespace sluice::engine
