// Events and Timelines: that they always signal, and tell each value's own end.
#include "core/event.h"

#include <doctest/doctest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

namespace sluice {
namespace {

TEST_CASE("event: a default one is done and ok") {
  const Event event;
  CHECK(event.done());
  CHECK(event.wait().ok());
  CHECK(event.status().ok());
}

TEST_CASE("event: done when its value is reached, with the status of its own stretch") {
  Timeline line;
  const Event one(line, 1), three(line, 3), four(line, 4);
  CHECK(!one.done());
  CHECK(one.status().ok());  // nothing is known yet
  line.signal(1);
  CHECK(one.done());
  CHECK(!three.done());
  line.signal(3, Status(Code::io_error, "lost"));
  CHECK(Event(line, 2).wait().code() == Code::io_error);
  CHECK(three.wait().message() == "lost");
  CHECK(one.wait().ok());
  line.signal(4);
  CHECK(four.wait().ok());
  CHECK(three.wait().code() == Code::io_error);
  CHECK(three == Event(line, 3));
  CHECK(!(three == four));
}

TEST_CASE("event: the last 64 failures are told in full") {
  Timeline line;
  for (uint64_t i = 1; i <= 200; ++i) line.signal(i, i % 2 ? Status(Code::io_error, std::to_string(i)) : Status());
  for (uint64_t i = 200 - 127; i <= 200; ++i) {
    const Status status = line.status_of(i);
    CHECK(status.ok() == (i % 2 == 0));
    if (i % 2) CHECK(status.message() == std::to_string(i));
  }
}

TEST_CASE("event: many threads wait for many values and all wake") {
  Timeline line;
  std::atomic<int> woken{0}, failed{0};
  std::vector<std::thread> threads;
  for (uint64_t i = 1; i <= 32; ++i) {
    threads.emplace_back([&, i] {
      if (!Event(line, i * 10).wait().ok()) ++failed;
      ++woken;
    });
  }
  for (uint64_t i = 1; i <= 320; ++i) line.signal(i, i == 200 ? Status(Code::cancelled, "one") : Status());
  for (std::thread& t : threads) t.join();
  CHECK(woken == 32);
  CHECK(failed == 1);
}

}  // namespace
}  // namespace sluice
