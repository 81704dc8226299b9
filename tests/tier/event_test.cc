// EventSet and EventJoiner, and what the Timelines beneath them must keep.
#include <doctest/doctest.h>

#include <array>
#include <thread>
#include <vector>

#include "core/error.h"
#include "offload/tier/event_joiner.h"
#include "offload/tier/event_set.h"

namespace sluice::tier {
namespace {

TEST_CASE("event set: one Event for each Timeline, the latest") {
  Timeline a, b;
  EventSet set;
  CHECK(set.empty());
  CHECK(set.add(Event()));
  CHECK(set.empty());
  CHECK(set.add(Event(a, 3)));
  CHECK(set.add(Event(a, 1)));
  CHECK(set.add(Event(b, 1)));
  CHECK(set.end() - set.begin() == 2);
  a.signal(1);
  set.prune();
  CHECK(set.end() - set.begin() == 2);
  a.signal(3, Status(Code::io_error, "a failure is an end too"));
  set.prune();
  CHECK(set.end() - set.begin() == 1);
  CHECK(set.first() == Event(b, 1));
  CHECK(set.add(Event(a, 2)));  // signalled already
  CHECK(set.end() - set.begin() == 1);
}

TEST_CASE("event set: a fifth Timeline fits only when one of four has signalled") {
  std::array<Timeline, 5> lines;
  EventSet set;
  for (size_t i = 0; i < 4; ++i) CHECK(set.add(Event(lines[i], 1)));
  CHECK(!set.add(Event(lines[4], 1)));
  CHECK(set.add(Event(lines[2], 7)));
  lines[1].signal(1);
  CHECK(set.add(Event(lines[4], 1)));
  CHECK(set.end() - set.begin() == 4);
}

TEST_CASE("event joiner: the joined Event comes after all, with the first failure") {
  std::array<Timeline, 3> lines;
  std::array<Event, 3> events;
  EventJoiner joiner;
  for (size_t i = 0; i < 3; ++i) events[i] = Event(lines[i], 1);
  const Event joined = joiner.join(events);
  lines[1].signal(1, Status(Code::io_error, "second"));
  lines[0].signal(1);
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  CHECK(!joined.done());
  lines[2].signal(1, Status(Code::cancelled, "third"));
  CHECK(joined.wait().message() == "second");
}

TEST_CASE("event joiner: more joins than places, several threads, each its own status") {
  EventJoiner joiner;
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      std::vector<std::array<Timeline, 2>> lines(150);
      std::vector<std::array<Event, 2>> events(150);
      std::vector<Event> joined(150);
      std::thread signaller([&] {
        for (size_t i = 0; i < lines.size(); ++i)
          for (Timeline& line : lines[i]) line.signal(1, i % 3 == 0 ? error(Code::io_error, "{}", i) : Status());
      });
      for (size_t i = 0; i < lines.size(); ++i) {
        events[i] = {Event(lines[i][0], 1), Event(lines[i][1], 1)};
        joined[i] = joiner.join(events[i]);
      }
      for (size_t i = 0; i < lines.size(); ++i) {
        const Status status = joined[i].wait();
        if (status.ok() != (i % 3 != 0)) ++wrong;
      }
      signaller.join();
    });
  for (std::thread& t : threads) t.join();
  CHECK(wrong == 0);
}

TEST_CASE("timeline: a failed stretch of any length stays failed") {
  Timeline line;
  line.signal(1);
  for (uint64_t v = 2; v < 500; ++v) line.signal(v, Status(Code::io_error, "broken"));
  line.signal(500);
  CHECK(line.status_of(1).ok());
  CHECK(line.status_of(2).code() == Code::io_error);
  CHECK(line.status_of(250).code() == Code::io_error);
  CHECK(line.status_of(499).code() == Code::io_error);
  CHECK(line.status_of(500).ok());
}

}  // namespace
}  // namespace sluice::tier
