// The bounded buffer of spans.
#include "core/trace.h"

#include <doctest/doctest.h>

#include <thread>
#include <vector>

namespace sluice {
namespace {

TEST_CASE("trace: spans in order up to the bound, the rest counted") {
  Trace trace(3);
  CHECK(trace.size() == 0);
  CHECK(trace.bytes() == 3 * (sizeof(TraceSpan) + 1));
  for (uint64_t i = 0; i < 5; ++i) trace.record({"cpu 0", "matmul", i, i + 1, 10 * i, 0});
  CHECK(trace.size() == 3);
  CHECK(trace.dropped() == 2);
  for (uint64_t i = 0; i < 3; ++i) CHECK(trace[i].bytes == 10 * i);
}

TEST_CASE("trace: one of no size drops everything") {
  Trace trace(0);
  trace.record({});
  CHECK(trace.size() == 0);
  CHECK(trace.dropped() == 1);
}

TEST_CASE("trace: a span that cannot be told counts as dropped, whether there is room or not") {
  Trace trace(1);
  trace.drop();
  trace.record({});
  CHECK(trace.size() == 1);
  CHECK(trace.dropped() == 1);
  trace.drop();
  trace.record({});
  CHECK(trace.dropped() == 3);
}

TEST_CASE("trace: what is found while others record is complete") {
  Trace trace(20'000);
  std::thread recorder([&trace] {
    for (uint64_t i = 1; i <= 20'000; ++i) trace.record({"lane", "name", i, i, i, i});
  });
  size_t found = 0, wrong = 0;
  for (int round = 0; round < 50 || found == 0; ++round)
    for (size_t i = 0; i < trace.size(); ++i) {
      const TraceSpan* span = trace.find(i);
      if (span == nullptr) continue;
      ++found;
      if (span->start_ns != i + 1 || span->end_ns != i + 1 || span->bytes != i + 1 || span->flops != i + 1) ++wrong;
    }
  recorder.join();
  CHECK(wrong == 0);
  for (size_t i = 0; i < 20'000; ++i) CHECK(trace.find(i) == &trace[i]);
}

TEST_CASE("trace: threads that record at once lose nothing within the bound") {
  Trace trace(1000);
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t)
    threads.emplace_back([&trace, t] {
      for (uint64_t i = 0; i < 250; ++i) trace.record({"lane", "name", t * 250 + i, 0, 0, 0});
    });
  for (std::thread& t : threads) t.join();
  REQUIRE(trace.size() == 1000);
  CHECK(trace.dropped() == 0);
  std::vector<bool> seen(1000);
  for (size_t i = 0; i < 1000; ++i) seen[trace[i].start_ns] = true;
  for (size_t i = 0; i < 1000; ++i) CHECK(seen[i]);
}

TEST_CASE("trace: the clock never goes back") {
  uint64_t last = now_ns();
  for (int i = 0; i < 10'000; ++i) {
    const uint64_t now = now_ns();
    if (now < last) FAIL("from ", last, " to ", now);
    last = now;
  }
}

}  // namespace
}  // namespace sluice
