#include "cpu/team.h"

#include <doctest/doctest.h>

#include <sched.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <numeric>

#include "core/trace.h"
#include "cpu/topology.h"

using namespace sluice;
using namespace sluice::cpu;

namespace {

// Plain memory, so that a missing barrier is a data race that TSan sees and a wrong sum that all see.
struct Relay {
  std::vector<uint64_t> a, b;
};

// Each thread sums what all threads wrote in the round before.
void forward(const void* context, Share share) {
  auto* r = static_cast<Relay*>(const_cast<void*>(context));
  r->b[share.index] = std::accumulate(r->a.begin(), r->a.end(), uint64_t{0}) % 1'000'003 + share.index;
}
void backward(const void* context, Share share) {
  auto* r = static_cast<Relay*>(const_cast<void*>(context));
  r->a[share.index] = std::accumulate(r->b.begin(), r->b.end(), uint64_t{0}) % 1'000'003 + share.index;
}

std::unique_ptr<Team> make_team(uint32_t n, uint32_t spin_ns = 30'000) {
  auto team = Team::create({n, {}, spin_ns});
  REQUIRE_MESSAGE(team.ok(), team.status().message());
  return std::move(team).value();
}

}  // namespace

TEST_CASE("team: rounds are separated by barriers, with more threads than cores too") {
  for (uint32_t n = 1; n <= 4; ++n)
    for (const uint32_t spin_ns : {0u, 30'000u}) {
      auto team = make_team(n, spin_ns);
      Relay relay{std::vector<uint64_t>(n, 1), std::vector<uint64_t>(n, 0)};
      Relay expected = relay;
      for (int round = 0; round < 500; ++round) {
        team->run(forward, &relay);
        team->run(backward, &relay);
        for (uint32_t i = 0; i < n; ++i) forward(&expected, {i, n});
        for (uint32_t i = 0; i < n; ++i) backward(&expected, {i, n});
      }
      CHECK(relay.a == expected.a);
    }
}

TEST_CASE("team: a crowd of threads makes progress") {
  auto team = make_team(12, 0);
  Relay relay{std::vector<uint64_t>(12, 1), std::vector<uint64_t>(12, 0)};
  const uint64_t start = now_ns();
  for (int round = 0; round < 200; ++round) team->run(forward, &relay);
  CHECK(now_ns() - start < 10'000'000'000);
}

TEST_CASE("team: every thread gets its own share") {
  auto team = make_team(4);
  std::vector<uint32_t> seen(4, 99);
  team->run(
      [](const void* context, Share share) {
        auto& all = *static_cast<std::vector<uint32_t>*>(const_cast<void*>(context));
        all[share.index] = share.count;
      },
      &seen);
  CHECK(seen == std::vector<uint32_t>{4, 4, 4, 4});
}

TEST_CASE("team: fetching ahead changes nothing, be it long, empty or of memory that is not there") {
  auto team = make_team(3);
  static const std::vector<std::byte> memory(1 << 20);
  Relay relay{std::vector<uint64_t>(3, 1), std::vector<uint64_t>(3, 0)};
  Relay expected = relay;
  const Team::Foresight foresight = [](const void*, Share share) -> Ahead {
    if (share.index == 0) return {memory.data(), memory.size()};
    if (share.index == 1) return {};
    return {reinterpret_cast<const std::byte*>(uintptr_t{64}), 1 << 16};
  };
  for (int round = 0; round < 200; ++round) {
    team->run(forward, &relay, foresight);
    team->run(backward, &relay, round % 2 == 0 ? foresight : nullptr);
    for (uint32_t i = 0; i < 3; ++i) forward(&expected, {i, 3});
    for (uint32_t i = 0; i < 3; ++i) backward(&expected, {i, 3});
  }
  CHECK(relay.a == expected.a);
}

TEST_CASE("team: cores that do not exist are no error, none is an error") {
  auto team = Team::create({2, {100000, 1023}, 0});
  REQUIRE(team.ok());
  Relay relay{{1, 1}, {0, 0}};
  (*team)->run(forward, &relay);
  CHECK(relay.b == std::vector<uint64_t>{2, 3});
  CHECK(Team::create({0, {}, 0}).status().code() == Code::invalid_argument);
}

TEST_CASE("gate: counts past 2^32") {
  Gate gate;
  gate.raise(UINT32_MAX);
  CHECK(gate.reached(UINT32_MAX));
  CHECK(!gate.reached(0));
  gate.raise(0);
  CHECK(gate.reached(UINT32_MAX));
  gate.wait(0, 0);
}

TEST_CASE("topology: at least one core, no more than hardware threads, a sane default") {
  const auto topology = read_topology();
  REQUIRE_MESSAGE(topology.ok(), topology.status().message());
  CHECK(topology->cores.size() >= 1);
  CHECK(topology->cores.size() <= topology->n_hardware_threads);
  CHECK(topology->n_numa_nodes >= 1);
  CHECK(topology->default_threads() >= 1);
  CHECK(topology->default_threads() <= topology->cores.size());
}

TEST_CASE("topology: cores outside the affinity are not counted") {
  cpu_set_t before;
  REQUIRE(::sched_getaffinity(0, sizeof before, &before) == 0);
  const auto all = read_topology();
  REQUIRE(all.ok());
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(all->cores.back(), &one);
  REQUIRE(::sched_setaffinity(0, sizeof one, &one) == 0);
  const auto narrowed = read_topology();
  REQUIRE(::sched_setaffinity(0, sizeof before, &before) == 0);
  REQUIRE(narrowed.ok());
  CHECK(narrowed->cores == std::vector<uint32_t>{all->cores.back()});
  CHECK(narrowed->n_hardware_threads == 1);
}

TEST_CASE("topology: a CPU quota lowers the default") {
  Topology t;
  t.cores = {0, 1, 2, 3, 4, 5, 6, 7};
  CHECK(t.default_threads() == 8);
  t.cpu_quota = 2.5;
  CHECK(t.default_threads() == 2);
  t.cpu_quota = 0.5;
  CHECK(t.default_threads() == 1);
  t.cpu_quota = 64;
  CHECK(t.default_threads() == 8);
}

TEST_CASE("topology: the quota of a cgroup is the tightest from it up to the root") {
  const std::filesystem::path root =
      std::filesystem::temp_directory_path() / ("sluice-cgroup-" + std::to_string(::getpid()));
  std::filesystem::create_directories(root / "a/b");
  const auto write = [&](const char* group, const char* text) { std::ofstream(root / group / "cpu.max") << text; };
  write("a", "150000 100000\n");
  write("a/b", "max 100000\n");
  CHECK(read_cpu_quota(root.c_str(), "/a/b") == 1.5);
  CHECK(read_cpu_quota(root.c_str(), "/") == 0);
  write("a/b", "100000 100000\n");
  CHECK(read_cpu_quota(root.c_str(), "/a/b") == 1);
  write("a/b", "garbage");
  CHECK(read_cpu_quota(root.c_str(), "/a/b") == 1.5);
  CHECK(read_cpu_quota(root.c_str(), "/not/there") == 0);
  std::filesystem::remove_all(root);
}
