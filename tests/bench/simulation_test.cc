// The simulation takes the times that arithmetic gives, and judges the planner: what it predicts, and what it chooses.
#include "bench/simulation.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <optional>

#include "bench/ideal.h"
#include "bench/shape_graph.h"
#include "bench/virtual_machine.h"
#include "core/bytes.h"
#include "engine/machine/machine_file.h"
#include "offload/plan/cost_model.h"
#include "offload/plan/planner_sites.h"
#include "tests/support/gpu_machine.h"

using namespace sluice;
using namespace sluice::bench;

namespace {

Machine machine_of(double cpu_gb_s, double gpu_gb_s, double link_gb_s) {
  Machine m = testing::gpu_machine(cpu_gb_s, gpu_gb_s, link_gb_s, 5);
  for (const DType type : {DType::bf16, DType::q4_k, DType::q6_k}) m.devices[0].matmul_gflops[type] = 20 * cpu_gb_s;
  return m;
}

ModelShape shape_of(uint32_t n_layers) { return {"test", 2048, n_layers, 16, 4, 128, 8192, 1024, 4096, false}; }

plan::PlanRequest request_of(uint64_t vram, uint64_t ram = 8 * GiB) {
  plan::PlanRequest r;
  r.accelerators = {{"gpu 0", vram, 0, {}, true}};
  r.ram_budget = ram;
  r.context = 1024;
  return r;
}

Simulated simulated_decode(const Graph& g, const Machine& m, const plan::Plan& p, uint32_t depth) {
  auto simulation = Simulation::create(g, m, p);
  REQUIRE_MESSAGE(simulation.ok(), simulation.status().message());
  const auto s = (*simulation)->decode(depth);
  REQUIRE_MESSAGE(s.ok(), s.status().message());
  return *s;
}

plan::Plan planned(const Graph& g, const Machine& m, const plan::PlanRequest& r) {
  auto p = plan::make_plan(g, m, r);
  REQUIRE_MESSAGE(p.ok(), p.status().message());
  return std::move(*p);
}

double matrix_bytes(const Graph& g) {
  double bytes = 0;
  for (const Op& op : g.ops)
    for (const TensorId id : matrices(op)) bytes += static_cast<double>(g.tensor(id).extent.bytes);
  return bytes;
}

}  // namespace

TEST_CASE("virtual machine: lanes run in order and at once; slots and events order them across") {
  const Machine m = machine_of(10, 100, 1);
  VirtualRates rates = virtual_rates(m);
  rates.cpu_beside_link = rates.link_beside_cpu = 1;
  Recorder recorder(rates);
  std::byte slot[64];
  const uint32_t copy = recorder.add(link_lane, 2);
  recorder.writes(copy, slot, sizeof slot);
  const uint32_t cpu = recorder.add(cpu_lane, 3);
  const uint32_t gpu = recorder.add(gpu_lane, 1);
  recorder.reads(gpu, slot + 8);
  const uint32_t again = recorder.add(link_lane, 1);  // not before the reader is done
  recorder.writes(again, slot, sizeof slot);
  const Event after = recorder.signal(cpu_lane);
  recorder.wait(gpu_lane, after);
  const uint32_t last = recorder.add(gpu_lane, 1);
  const Replay r = replay(recorder);
  CHECK(r.end_s[copy] == doctest::Approx(2));
  CHECK(r.end_s[cpu] == doctest::Approx(3));
  CHECK(r.end_s[gpu] == doctest::Approx(3));
  CHECK(r.end_s[again] == doctest::Approx(4));
  CHECK(r.end_s[last] == doctest::Approx(4));
  CHECK(r.busy_until[last][link_lane] == doctest::Approx(3));
}

TEST_CASE("virtual machine: the CPU and the link slow each other down while both run") {
  VirtualRates rates = virtual_rates(machine_of(10, 100, 1));
  rates.cpu_beside_link = 0.5, rates.link_beside_cpu = 0.25;
  Recorder recorder(rates);
  const uint32_t cpu = recorder.add(cpu_lane, 2), link = recorder.add(link_lane, 3);
  const Replay r = replay(recorder);
  CHECK(r.end_s[cpu] == doctest::Approx(4));   // at half speed
  CHECK(r.end_s[link] == doctest::Approx(6));  // a quarter of 4 s, then 2 s alone
}

TEST_CASE("virtual machine: the CPU begins once for products of the same activations, up to eight") {
  Machine m = machine_of(10, 100, 1);
  m.devices[0].call_us = 1000;
  const float x[64] = {};
  float out[640];
  const auto seconds = [&](int products, bool waits, const float* second_x) {
    Recorder recorder(virtual_rates(m));
    VirtualQueue queue(recorder, cpu_lane, nullptr);
    for (int i = 0; i < products; ++i) {
      const float* in = i == 1 ? second_x : x;
      queue.launch(MatmulCall{nullptr, DType::f32, 16, 64, reinterpret_cast<const std::byte*>(in), ActFormat::f32, 1,
                              out + i * 16, 16, nullptr, false});
      if (waits) queue.wait(queue.signal());
    }
    return replay(recorder).end_s.back();
  };
  CHECK(seconds(1, false, x) == doctest::Approx(1e-3).epsilon(0.01));
  CHECK(seconds(8, false, x) == doctest::Approx(1e-3).epsilon(0.01));
  CHECK(seconds(9, false, x) == doctest::Approx(2e-3).epsilon(0.01));
  CHECK(seconds(3, true, x) == doctest::Approx(3e-3).epsilon(0.01));
  CHECK(seconds(2, false, x + 32) == doctest::Approx(2e-3).epsilon(0.01));
}

TEST_CASE("simulation: a model in VRAM takes its bytes at 0.9 of the memory's rate") {
  const Graph g = graph_of(shape_of(4));
  Machine m = machine_of(10, 100, 1);
  m.devices[1].call_us = 0;
  for (LinkRates& link : m.links) link.latency_us = 0;  // over which the tables of the step come
  const plan::Plan p = planned(g, m, request_of(4 * GiB));
  const Simulated s = simulated_decode(g, m, p, 16);
  CHECK(s.link_s == 0);
  CHECK(s.cpu_s == 0);
  CHECK(s.seconds >= matrix_bytes(g) / 90e9);
  CHECK(s.seconds < 1.03 * matrix_bytes(g) / 90e9);
}

TEST_CASE("simulation: what is streamed takes the link's time, what is on disk the disk's") {
  const Graph g = graph_of(shape_of(4));
  const Machine m = machine_of(0.05, 1000, 1);  // a CPU that is of no use
  const plan::Plan p = planned(g, m, request_of(60 * MiB));
  const plan::Traffic t = plan::traffic(g, p, false);
  REQUIRE(t.link_bytes[1] > 0);
  const Simulated s = simulated_decode(g, m, p, 16);
  const double floor = static_cast<double>(t.link_bytes[1]) / 1e9;
  CHECK(s.seconds >= 0.999 * floor);
  CHECK(s.seconds < 1.1 * floor);

  const Machine fast = machine_of(0.05, 1000, 16);
  const plan::Plan from_disk = planned(g, fast, request_of(60 * MiB, 60 * MiB));
  const double disk = static_cast<double>(plan::traffic(g, from_disk, false).disk_bytes) / 1e9;
  REQUIRE(disk > 0);
  const Simulated d = simulated_decode(g, fast, from_disk, 16);
  CHECK(d.seconds >= 0.999 * disk);
  CHECK(d.seconds < 1.1 * disk);
  CHECK(d.disk_s > 0.9 * d.seconds);
}

TEST_CASE("simulation: predictions are within 10 % of it, decode and prompts") {
  int judged = 0;
  for (const double cpu : {4.0, 20.0})
    for (const double link : {1.0, 8.0})
      for (const uint64_t vram : {90 * MiB, 150 * MiB, 400 * MiB}) {
        const Graph g = graph_of(shape_of(6));
        const Machine m = machine_of(cpu, 200, link);
        const plan::Plan p = planned(g, m, request_of(vram));
        CAPTURE(cpu);
        CAPTURE(link);
        CAPTURE(vram);
        const double decode = simulated_decode(g, m, p, 256).seconds;
        const double predicted = plan::step_cost(g, m, p, 1, 256 + 3).seconds();
        CHECK(predicted == doctest::Approx(decode).epsilon(0.1));
        auto simulation = Simulation::create(g, m, p);
        REQUIRE(simulation.ok());
        const auto prompt = (*simulation)->prompt(512);
        REQUIRE(prompt.ok());
        CHECK(plan::prompt_seconds(g, m, p, 512) == doctest::Approx(prompt->seconds).epsilon(0.1));
        ++judged;
      }
  CHECK(judged == 12);
}

// All placements of two layers while decoding, each carried out; the planner's must be within 5 % of the best.
TEST_CASE("simulation: the planner's choice is within 5 % of the best of all placements, in simulated time" *
          doctest::test_suite("exactness")) {
  const Graph g = graph_of(shape_of(2));
  const size_t n = g.ops.size() - 1;
  for (const auto& [cpu, link, vram] :
       {std::tuple{4.0, 1.0, 45 * MiB}, {20.0, 8.0, 45 * MiB}, {10.0, 20.0, 30 * MiB}}) {
    const Machine m = machine_of(cpu, 200, link);
    plan::PlanRequest r = request_of(vram);
    r.step_tokens = 64;
    const auto total = [&](const plan::Plan& p) {
      auto simulation = Simulation::create(g, m, p);
      REQUIRE(simulation.ok());
      const plan::Request typical = plan::typical_request(r.context, 0, 0);
      const auto decode = (*simulation)->decode(typical.depth);
      const auto prompt = (*simulation)->prompt(typical.prompt);
      REQUIRE(decode.ok());
      REQUIRE(prompt.ok());
      return typical.answer * decode->seconds + prompt->seconds;
    };
    const plan::Plan chosen = planned(g, m, r);
    const double of_chosen = total(chosen);
    double best = of_chosen;
    const plan::Reserve reserve{64, chosen.movement.sites.back().ahead_bytes, plan::host_ahead(r.ram_budget)};
    const plan::WeightMap weights = plan::cut(g, chosen.movement.weights.max_tile_bytes);
    for (uint32_t bits = 1; bits < 1u << n; bits += 3) {  // a third of them
      plan::Places places;
      for (size_t i = 0; i <= n; ++i) places.decode.op_site.push_back(i == 0 ? bits & 1 : bits >> (i - 1) & 1);
      places.prompt = places.decode;
      const auto p = plan::arrange(g, m, r, weights, places, reserve);
      if (p.ok()) best = std::min(best, total(*p));
    }
    CAPTURE(cpu);
    CHECK(of_chosen <= 1.05 * best);
  }
}

namespace {

// The best plan, as predicted, of whole ops in all their placements.
plan::Plan best_of_whole(const Graph& g, const Machine& m, const plan::PlanRequest& r, const plan::Plan& like) {
  const size_t n = g.ops.size() - 1;
  const plan::Reserve reserve{r.step_tokens, like.movement.sites.back().ahead_bytes, plan::host_ahead(r.ram_budget)};
  const plan::WeightMap weights = plan::cut(g, like.movement.weights.max_tile_bytes);
  std::optional<plan::Plan> best;
  for (uint32_t bits = 1; bits < 1u << n; ++bits) {
    plan::Places places;
    for (size_t i = 0; i <= n; ++i) places.decode.op_site.push_back(i == 0 ? bits & 1 : bits >> (i - 1) & 1);
    places.prompt = places.decode;
    auto p = plan::arrange(g, m, r, weights, places, reserve);
    if (!p.ok()) continue;
    p->prediction = plan::predict(g, m, *p, 0);
    if (!best || p->prediction.decode_tok_s > best->prediction.decode_tok_s) best = std::move(*p);
  }
  REQUIRE(best);
  return *best;
}

}  // namespace

TEST_CASE("simulation: FFNs that are split make a token faster by what is predicted") {
  const Graph g = graph_of(shape_of(2));
  plan::PlanRequest r = request_of(45 * MiB);
  r.step_tokens = 64;
  // A CPU and a link of the same speed, few layers: whole sub-layers leave one of the two idle.
  const Machine m = machine_of(8, 40, 8);
  const plan::Plan split = planned(g, m, r), whole = best_of_whole(g, m, r, split);
  const auto& splits = split.numerics.decode.splits;
  REQUIRE(std::any_of(splits.begin(), splits.end(), [](const plan::Split& s) { return s.row != 0; }));
  const double with = simulated_decode(g, m, split, 256).seconds, without = simulated_decode(g, m, whole, 256).seconds;
  CAPTURE(1 / with);
  CAPTURE(1 / without);
  CHECK(with < 0.95 * without);
  const double predicted = whole.prediction.decode_tok_s / split.prediction.decode_tok_s;
  CHECK(with / without == doctest::Approx(predicted).epsilon(0.05));
  CHECK(plan::step_cost(g, m, split, 1, 256 + 3).seconds() == doctest::Approx(with).epsilon(0.1));
}

// What the machine files say of the reference machine, and how near plans come to it.
TEST_CASE("simulation: on the reference machine a 70B model decodes within 10 % of what the machine allows" *
          doctest::test_suite("exactness")) {
  const Machine m = *engine::read_machine(SLUICE_SOURCE_DIR "/machines/reference.json");
  const ModelShape shape = *shape_named("70b");
  const Graph g = graph_of(shape);
  plan::PlanRequest r = request_of(24 * GiB, 200 * GiB);
  r.accelerators.front().fixed = {{"context", 512 * MiB}};
  r.context = 8192;
  const plan::Plan p = planned(g, m, r);
  const double seconds = simulated_decode(g, m, p, 256).seconds;
  const double ideal = ideal_token_s(shape, m, {24 * GiB - 512 * MiB, 200 * GiB, 8192, 256});
  CHECK(seconds >= ideal_token_s(shape, m, {24 * GiB - 512 * MiB, 200 * GiB, 256, 256}));  // KV that nobody has yet
  CHECK(seconds <= ideal / 0.9);
  CHECK(1 / seconds >= 7.5);
}

TEST_CASE("machine files: all can be read, say where they are from, and are planned for") {
  const Graph g = graph_of(*shape_named("8b"));
  for (const char* name : {"reference", "rtx3060-ddr4", "rtx4090-ddr5", "rtx5090-ddr5", "laptop-8core-nvme"}) {
    CAPTURE(name);
    const auto m = engine::read_machine(std::string(SLUICE_SOURCE_DIR "/machines/") + name + ".json");
    REQUIRE_MESSAGE(m.ok(), m.status().message());
    CHECK(m->name.find(std::string(name) == "reference" ? "measured" : "datasheet") != std::string::npos);
    plan::PlanRequest r;
    r.ram_budget = m->tier("host")->capacity / 10 * 8;
    r.context = 4096;
    for (size_t i = 1; i < m->devices.size(); ++i)
      r.accelerators.push_back({m->devices[i].id, m->tier(m->devices[i].id)->capacity, 0, {}, true});
    const auto p = plan::make_plan(g, *m, r);
    REQUIRE_MESSAGE(p.ok(), p.status().message());
    CHECK(p->movement.sites.size() == m->devices.size());
    CHECK(p->prediction.decode_tok_s > 5);
  }
}
