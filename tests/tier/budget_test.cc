#include "offload/tier/budget.h"

#include <doctest/doctest.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

namespace sluice::tier {
namespace {

TEST_CASE("budget: a charge lasts as long as its reservation") {
  Budget budget("ram", 100);
  {
    auto a = budget.reserve(60, "a");
    REQUIRE(a.ok());
    CHECK(budget.used() == 60);
    CHECK(budget.left() == 40);
    Reservation moved = std::move(*a);
    CHECK(budget.used() == 60);
    CHECK(moved.bytes() == 60);
    Reservation b;
    b = std::move(moved);
    CHECK(moved.bytes() == 0);
    CHECK(budget.used() == 60);
    b.reset();
    CHECK(budget.used() == 0);
    b.reset();
  }
  CHECK(budget.used() == 0);
  CHECK(budget.peak() == 60);
}

TEST_CASE("budget: assignment gives back what was held before") {
  Budget budget("ram", 100);
  Reservation a = budget.reserve(30, "a").value();
  a = budget.reserve(50, "b").value();
  CHECK(budget.used() == 50);
  CHECK(budget.peak() == 80);
}

TEST_CASE("budget: the limit is hard, and what fails charges nothing") {
  Budget budget("vram", 100);
  const Reservation a = budget.reserve(100, "all").value();
  CHECK(budget.left() == 0);
  const auto none = budget.reserve(0, "nothing");
  CHECK(none.ok());
  const auto more = budget.reserve(1, "weights");
  REQUIRE(!more.ok());
  CHECK(more.status().code() == Code::over_budget);
  CHECK(more.status().message().find("vram") != std::string::npos);
  CHECK(more.status().message().find("weights") != std::string::npos);
  CHECK(!budget.reserve(UINT64_MAX, "wraps").ok());
  CHECK(budget.used() == 100);
}

TEST_CASE("budget: many threads never exceed it and leave nothing behind") {
  Budget budget("ram", 1000);
  std::atomic<int64_t> mine{0};
  std::atomic<bool> exceeded{false};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 5000; ++i) {
        const uint64_t bytes = random() % 500;
        auto r = budget.reserve(bytes, "t");
        if (!r.ok()) continue;
        if ((mine += static_cast<int64_t>(bytes)) > 1000) exceeded = true;
        mine -= static_cast<int64_t>(bytes);
      }
    });
  for (std::thread& t : threads) t.join();
  CHECK(!exceeded);
  CHECK(budget.used() == 0);
  CHECK(budget.peak() <= 1000);
}

}  // namespace
}  // namespace sluice::tier
