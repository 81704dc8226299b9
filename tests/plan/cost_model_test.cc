// Predictions from machines whose rates are made up, checked by arithmetic.
#include "offload/plan/cost_model.h"

#include <doctest/doctest.h>

#include "offload/plan/planner.h"

using namespace sluice;
using namespace sluice::plan;

namespace {

// h 256, one layer, one matrix of each kind: Q8_0 of 256 by 256.
Graph small_graph() {
  Graph g;
  g.name = "small";
  g.hidden_size = 256;
  g.n_vocab = 256;
  g.n_layers = 1;
  g.context_length = 512;
  g.n_heads = 4;
  g.n_kv_heads = 4;
  g.head_dim = 64;
  const auto add = [&](DType type, uint32_t rows, uint32_t cols) {
    const TensorId id{static_cast<uint32_t>(g.tensors.size())};
    const uint64_t bytes = rows * row_bytes(type, cols), offset = uint64_t{1 << 20} * (id.value + 1);
    g.tensors.push_back({"t" + std::to_string(id.value), type, rows, cols, 1, {FileId{0}, offset, bytes}});
    return id;
  };
  const auto matrix = [&] { return add(DType::q8_0, 256, 256); };
  const auto vector = [&] { return add(DType::f32, 1, 256); };
  g.ropes.push_back({true, 64, 1, std::vector<float>(32, 1.0f)});
  g.ops.push_back(EmbedOp{matrix(), 1});
  AttentionInOp in;
  in.norm = vector();
  in.wq = matrix(), in.wk = matrix(), in.wv = matrix();
  g.ops.push_back(in);
  g.ops.push_back(AttentionOp{0, 0.125f, 0, 0});
  AttentionOutOp out;
  out.wo = matrix();
  g.ops.push_back(out);
  FfnOp ffn;
  ffn.norm = vector();
  ffn.gate = matrix(), ffn.up = matrix(), ffn.down = matrix();
  g.ops.push_back(ffn);
  HeadOp head;
  head.norm = vector();
  head.output = matrix();
  g.ops.push_back(head);
  return g;
}

constexpr uint32_t n_products = 8;  // q k v o gate up down head

Machine machine_with(std::vector<ProductTimes> products, std::vector<LayerTimes> layers) {
  DeviceRates cpu;
  cpu.id = "cpu";
  cpu.memory_gb_s = 10;
  cpu.matvec_gb_s[DType::q8_0] = 5;
  cpu.matmul_gflops[DType::q8_0] = 100;
  cpu.matmul_f32_gflops[DType::f32] = 1000;
  cpu.call_us = 2;
  cpu.products = std::move(products);
  cpu.layers = std::move(layers);
  Machine m;
  m.devices = {cpu};
  m.tiers = {{"disk", 0, 2, 0, 1, 0.5}};
  return m;
}

Plan plan_of(const Graph& g, const Machine& m) {
  PlanRequest request;
  request.ram_budget = 256 << 20;
  request.context = 512;
  auto plan = make_plan(g, m, request);
  REQUIRE_MESSAGE(plan.ok(), plan.status().message());
  return std::move(*plan);
}

const ProductTimes product = {DType::q8_0, Compute::fast, 256, 256, 64, 20, 650};
const LayerTimes layer = {Compute::fast, 256, 4, 4, 64, 256, 64, 7, 133, 3, 50, 2};

void add_gpu(Machine& m, double memory_gb_s, double call_us) {
  DeviceRates gpu;
  gpu.id = "gpu 0";
  gpu.memory_gb_s = memory_gb_s;
  gpu.call_us = call_us;
  gpu.matmul_gflops[DType::bf16] = 1000;
  m.devices.push_back(gpu);
}

PlanRequest gpu_request() {
  PlanRequest request;
  request.ram_budget = 256 << 20;
  request.context = 512;
  request.accelerators = {{"gpu 0", 256 << 20, 0, {}, true}};
  return request;
}

}  // namespace

TEST_CASE("cost model: times that were measured at the model's sizes are added up") {
  const Graph g = small_graph();
  const Machine m = machine_with({product}, {layer});
  const Plan plan = plan_of(g, m);
  // One token at depth 100 sees 101 cells.
  CHECK(step_cost(g, m, plan, 1, 100).compute_s * 1e6 == doctest::Approx(n_products * 20 + 7 + 3 + 101 * 0.05));
  // 64 tokens: the head is of one; each sees 100 and half of the step.
  CHECK(step_cost(g, m, plan, 64, 100).compute_s * 1e6 == doctest::Approx(7 * 650 + 20 + 133 + 64 * 132.5 * 0.002));
  // Between: in proportion to the tokens beyond the first. Beyond: in proportion to the tokens.
  CHECK(step_cost(g, m, plan, 22, 0).compute_s * 1e6 ==
        doctest::Approx(7 * (20 + 630 / 3.0) + 20 + 7 + 126 / 3.0 + 22 * 11.5 * 0.002));
  CHECK(step_cost(g, m, plan, 128, 0).compute_s * 1e6 == doctest::Approx(7 * 1300 + 20 + 266 + 128 * 64.5 * 0.002));
}

TEST_CASE("cost model: times for other sizes and precisions are not used") {
  const Graph g = small_graph();
  ProductTimes other = product, exact = product;
  other.rows = 257;
  exact.compute = Compute::f32;
  const Machine m = machine_with({other, exact}, {}), none = machine_with({}, {});
  const Plan plan = plan_of(g, m);
  CHECK(step_cost(g, m, plan, 1, 0).compute_s == step_cost(g, none, plan, 1, 0).compute_s);
}

TEST_CASE("cost model: without them, bytes at the type's rate and a call for each product") {
  const Graph g = small_graph();
  const Machine m = machine_with({}, {layer});
  const Plan plan = plan_of(g, m);
  const double bytes = 256 * 272, one_us = bytes / 5e9 * 1e6 + 2;
  CHECK(step_cost(g, m, plan, 1, 0).compute_s * 1e6 == doctest::Approx(n_products * one_us + 7 + 3 + 0.05));
}

TEST_CASE("cost model: what runs together is slower, and the rest of the longer one runs alone") {
  StepCost cost{1.0, 4.0, 2.0, 2.0};  // compute done at 2 s, by which 1 s worth of the disk's 4 is read
  CHECK(cost.seconds() == doctest::Approx(5));
  cost = {4.0, 1.0, 2.0, 2.0};
  CHECK(cost.seconds() == doctest::Approx(5));
  cost = {1.0, 1.0, 1.5, 1.5};
  CHECK(cost.seconds() == doctest::Approx(1.5));
  cost = {3.0, 2.0, 1.0, 1.0};  // no loss: the longer one
  CHECK(cost.seconds() == doctest::Approx(3));
  cost = {3.0, 0.0, 2.0, 2.0};
  CHECK(cost.seconds() == doctest::Approx(3));
}

TEST_CASE("cost model: the disk's rates beside a device become slowdowns") {
  const Graph g = small_graph();
  const Machine m = machine_with({product}, {layer});
  Plan plan = plan_of(g, m);
  Holding& host = plan.movement.sites.front();
  double bytes = 0;
  for (size_t i = 0; i < host.resident.size(); ++i) {
    if (plan.movement.weights.blocks[i].role != BlockRole::matrix) continue;
    host.resident[i] = false;
    bytes += static_cast<double>(plan.movement.weights.blocks[i].bytes);
  }
  const StepCost cost = step_cost(g, m, plan, 1, 0);
  CHECK(cost.disk_s == doctest::Approx(bytes / 2e9));
  CHECK(cost.disk_slowdown == doctest::Approx(2));
  CHECK(cost.compute_slowdown == doctest::Approx(2));
}

// --- with an accelerator

namespace {

OpCost op_at(uint8_t site, double kernels_s, double link_bytes = 0, double hand_over_s = 0) {
  OpCost op;
  op.site = site;
  op.kernels_s = op.memory_s = kernels_s;
  op.link_bytes = link_bytes;
  op.hand_over_s = hand_over_s;
  return op;
}

LinkLane lane_of(double bytes_s, double ahead, double beside = 1, double host_beside = 1) {
  LinkLane lane;
  lane.bytes_s = bytes_s;
  lane.ahead_bytes = ahead;
  lane.beside = beside;
  lane.host_beside = host_beside;
  return lane;
}

}  // namespace

TEST_CASE("cost model: sites take turns, and what they hand over takes its time") {
  const StepCost cost = pass_cost(std::vector{op_at(0, 2), op_at(1, 1, 0, 0.5), op_at(0, 3, 0, 0.25)}, lane_of(1, 0));
  CHECK(cost.compute_s == doctest::Approx(6.75));
  CHECK(cost.host_s == doctest::Approx(5));
  CHECK(cost.device_s == doctest::Approx(1));
  CHECK(cost.hand_over_s == doctest::Approx(0.75));
  CHECK(cost.link_s == 0);
}

TEST_CASE("cost model: the link runs ahead by what staging holds, and is waited for beyond") {
  // 10 bytes a second; 40 are needed, 4 s of them; the host computes for 3 s meanwhile.
  const std::vector ops = {op_at(0, 3), op_at(1, 0.5, 40)};
  const StepCost roomy = pass_cost(ops, lane_of(10, 100));
  CHECK(roomy.compute_s == doctest::Approx(4));  // the link never pauses
  CHECK(roomy.link_s == doctest::Approx(4));
  CHECK(roomy.wait_s == doctest::Approx(0.5));
  const StepCost tight = pass_cost(ops, lane_of(10, 10));
  CHECK(tight.compute_s == doctest::Approx(3 + 3));  // 10 are there when the host is done, 30 come then
  CHECK(tight.wait_s == doctest::Approx(2.5));
  const StepCost fast = pass_cost(ops, lane_of(100, 100));
  CHECK(fast.compute_s == doctest::Approx(3.5));
  CHECK(fast.wait_s == 0);
}

TEST_CASE("cost model: host and link slow each other down while both run, and no longer") {
  // The link needs 2 s alone; beside it the host keeps half of its speed and the link all of its own.
  const std::vector ops = {op_at(0, 3), op_at(1, 0, 20)};
  const StepCost cost = pass_cost(ops, lane_of(10, 20, 1, 0.5));
  CHECK(cost.compute_s == doctest::Approx(2 + 2));  // 2 s at half speed do 1 s of the host's 3
  CHECK(cost.link_s == doctest::Approx(2));
  // The link keeps half: in the host's 3 s it brings 15 of 20, the rest at full speed.
  const StepCost slow = pass_cost(ops, lane_of(10, 20, 0.5, 1));
  CHECK(slow.compute_s == doctest::Approx(3 + 0.5));
}

TEST_CASE("cost model: of a split op the longer part counts, then what its site does alone") {
  OpCost home = op_at(1, 5), other = op_at(0, 9);
  home.divisible_s = 4, other.divisible_s = 8, other.beside_rows_s = 0.5;
  const OpCost split = split_cost(home, other, 0.75);
  CHECK(split.site == 1);
  CHECK(split.kernels_s == doctest::Approx(1));
  CHECK(split.device_rows_s == doctest::Approx(3));
  CHECK(split.host_rows_s == doctest::Approx(2.5));
  const StepCost cost = pass_cost(std::vector{split, op_at(0, 2)}, lane_of(1, 0));
  CHECK(cost.compute_s == doctest::Approx(3 + 1 + 2));
  CHECK(cost.host_s == doctest::Approx(2.5 + 2));
  CHECK(cost.device_s == doctest::Approx(3 + 1));
  CHECK(cost.wait_s == 0);
  const OpCost back = split_cost(other, home, 0.75);  // at the host
  CHECK(back.host_rows_s == doctest::Approx(6));
  CHECK(back.device_rows_s == doctest::Approx(1));
  CHECK(pass_cost(std::vector{back}, lane_of(1, 0)).compute_s == doctest::Approx(6 + 1));
}

TEST_CASE("cost model: what streams for a split op comes while the host has its rows") {
  OpCost op = op_at(1, 0.5, 30);  // 30 bytes at 10 a second
  op.device_rows_s = 0.5;
  op.host_rows_s = 2;
  // Nothing ahead: 3 s, of them 2 beside the host.
  StepCost cost = pass_cost(std::vector{op}, lane_of(10, 0));
  CHECK(cost.compute_s == doctest::Approx(3 + 0.5));
  CHECK(cost.wait_s == doctest::Approx(1));
  CHECK(cost.link_s == doctest::Approx(3));
  // While the rest is computed 5 bytes come ahead.
  cost = pass_cost(std::vector{op}, lane_of(10, 5));
  CHECK(cost.compute_s == doctest::Approx(2.5 + 0.5));
  // Both at half their speed while both run: 20 of 30 bytes in the host's 4 s, the others in 1 s.
  cost = pass_cost(std::vector{op}, lane_of(10, 0, 0.5, 0.5));
  CHECK(cost.compute_s == doctest::Approx(4 + 1 + 0.5));
  CHECK(cost.host_s == doctest::Approx(4));
}

namespace {

// A GPU, a link of 1 GB/s to it and one of 2 back.
Machine linked_machine() {
  Machine m = machine_with({}, {});
  add_gpu(m, 100, 3);
  m.links = {{"host", "gpu 0", 1, 5}, {"gpu 0", "host", 2, 7}};
  return m;
}

}  // namespace

TEST_CASE("cost model: an accelerator without measurements computes at 0.9 of its memory, once a tile is called") {
  const Graph g = small_graph();
  const Machine m = linked_machine();
  const auto plan = make_plan(g, m, gpu_request());
  REQUIRE_MESSAGE(plan.ok(), plan.status().message());
  const std::vector<OpCost> ops = op_costs(g, m, *plan, 1, 1, 0);
  const double bytes = 256 * 272;
  CHECK(ops.back().kernels_s * 1e6 == doctest::Approx(bytes / 90e9 * 1e6 + 3));
  const std::vector<OpCost> many = op_costs(g, m, *plan, 1, 64, 0);
  // Norm and activation of 64 tokens and what is quantized, at half the memory's rate.
  const double small = 64 * (5 * 256 * 4 + 2 * 256 * 5) / 50e9;
  CHECK(many[4].kernels_s * 1e6 ==
        doctest::Approx(3 * (2.0 * 64 * 256 * 256 / 1000e9 * 1e6 + 3) + 3 * 3 + small * 1e6));
  // Values and logits: latency of both ways, a call for each, bytes at the rate of their way.
  const LinkLane lane = link_lane(m, "gpu 0");
  Placement placement;
  placement.op_site = {0, 0, 1, 1, 1, 1};
  std::vector<OpCost> moved(g.ops.size());
  add_hand_overs(g, placement, lane, 10, false, moved);
  CHECK(moved[2].hand_over_s * 1e6 == doctest::Approx(12 + 3 * 3 + 3 * 10 * 256 * 4 / 1e9 * 1e6));
  CHECK(moved[3].hand_over_s * 1e6 == doctest::Approx(12 + 3 + 10 * 256 * 4 / 1e9 * 1e6));  // the residual stream
  CHECK(moved[4].hand_over_s == 0);
  CHECK(moved[5].hand_over_s * 1e6 == doctest::Approx(12 + 3 + 256 * 4 / 2e9 * 1e6));
}

TEST_CASE("cost model: what part of attention is near, counted cell by cell") {
  for (const uint64_t near : {1u, 7u, 64u})
    for (const uint32_t depth : {0u, 5u, 63u, 64u, 200u})
      for (const uint32_t n : {1u, 3u, 70u}) {
        uint64_t all = 0, seen_near = 0;
        for (uint64_t cells = depth + 1; cells <= depth + n; ++cells) all += cells, seen_near += std::min(cells, near);
        CHECK(near_share(near, depth, n) == doctest::Approx(static_cast<double>(seen_near) / static_cast<double>(all)));
      }
}

TEST_CASE("cost model: attention that both sites do takes as long as the longer part, and brings its values there") {
  const Graph g = small_graph();
  const Machine m = linked_machine();
  const auto plan = make_plan(g, m, gpu_request());
  REQUIRE(plan.ok());
  Placement all;
  all.op_site.assign(g.ops.size(), 1);
  const size_t attention = 2;
  REQUIRE(std::holds_alternative<AttentionOp>(g.ops[attention]));
  const std::vector<std::vector<OpCost>> at = {op_costs(g, m, *plan, 0, 1, 100), op_costs(g, m, *plan, 1, 1, 100)};
  const OpCost both = placed_cost(g, all, attention, at, 0.25);
  CHECK(both.device_rows_s == doctest::Approx(0.25 * at[1][attention].kernels_s));
  CHECK(both.host_rows_s == doctest::Approx(0.75 * at[0][attention].kernels_s));
  CHECK(both.kernels_s == doctest::Approx(0));
  CHECK(placed_cost(g, all, attention, at, 1).kernels_s == at[1][attention].kernels_s);
  const LinkLane lane = link_lane(m, "gpu 0");
  std::vector<OpCost> near(g.ops.size()), far(g.ops.size());
  add_hand_overs(g, all, lane, 1, false, near);
  add_hand_overs(g, all, lane, 1, true, far);
  CHECK(near[attention].hand_over_s == 0);
  const double state = g.n_heads * (g.head_dim + 2.0);
  CHECK(far[attention].hand_over_s * 1e6 ==
        doctest::Approx(2 * 12 + 4 * 3 + 3 * 256 * 4 / 2e9 * 1e6 + state * 4 / 1e9 * 1e6));
}

TEST_CASE("cost model: tokens beyond those that were measured go at the rate of more") {
  const Graph g = small_graph();
  Machine machine = machine_with({}, {});
  Plan plan = plan_of(g, machine);
  const auto ffn_s = [&](uint32_t n) { return op_costs(g, machine, plan, host_site, n, 0)[4].kernels_s; };
  const double calls = 6 * machine.devices[0].call_us * 1e-6;  // three products, and three others
  const double token = 3 * 2.0 * 256 * 256 / 100e9;
  CHECK(ffn_s(64) == doctest::Approx(64 * token + calls));
  CHECK(ffn_s(192) == doctest::Approx(192 * token + calls));
  machine.devices[0].many_tokens = 64;
  machine.devices[0].more_gflops = 400;
  CHECK(ffn_s(64) == doctest::Approx(64 * token + calls));
  CHECK(ffn_s(192) == doctest::Approx((64 + 128 / 4.0) * token + calls));
  // Also where products were timed: 650 us for 64 tokens.
  machine.devices[0].products = {product};
  CHECK(ffn_s(64) == doctest::Approx(3 * 650e-6 + calls / 2));
  CHECK(ffn_s(192) == doctest::Approx(3 * 650e-6 + 128 / 4.0 * token + calls / 2));
}

TEST_CASE("cost model: calls of a step that is replayed whole have a cost of their own, and some share one") {
  const Graph g = small_graph();
  Machine m = machine_with({}, {});
  add_gpu(m, 1000, 3);
  m.links = {{"host", "gpu 0", 20, 0.1}, {"gpu 0", "host", 20, 0.1}};
  auto plan = make_plan(g, m, gpu_request());
  REQUIRE(plan.ok());
  const auto us = [&](double recorded_us, uint32_t n) {
    m.devices.back().recorded_us = recorded_us;
    return step_cost(g, m, *plan, n, 0).compute_s * 1e6;
  };
  // Into attention 3, attention 2, out of it 2, FFN 3, head 1.
  CHECK(us(1.5, 1) - us(0.5, 1) == doctest::Approx(11));
  CHECK(us(0, 1) > us(3, 1));  // not measured: each as if launched
  CHECK(us(1.5, 2) == doctest::Approx(us(0.5, 2)));
  // Rows of an FFN at the host: not replayed.
  plan->numerics.decode.splits.assign(g.ops.size(), {});
  plan->numerics.decode.splits[4] = {128, host_site};
  CHECK(us(1.5, 1) == doctest::Approx(us(0.5, 1)));
  plan->numerics.decode.splits.clear();
  // Weights that pass through: not replayed.
  for (size_t i = 0; i < plan->movement.sites[1].resident.size(); ++i) plan->movement.sites[1].resident[i] = false;
  plan->movement.sites[0].resident.assign(plan->movement.sites[1].resident.size(), true);
  CHECK(us(1.5, 1) == doctest::Approx(us(0.5, 1)));
}

TEST_CASE("cost model: attention of prompts goes at a part of the rate of products that was measured") {
  const Graph g = small_graph();
  Machine m = machine_with({}, {});
  add_gpu(m, 1e9, 0);  // GB/s, so that arithmetic decides
  m.links = {{"host", "gpu 0", 20, 0.1}, {"gpu 0", "host", 20, 0.1}};
  auto plan = make_plan(g, m, gpu_request());
  REQUIRE(plan.ok());
  const double flops = 4.0 * 100 * 50.5 * 4 * 64;
  const auto attention_s = [&] { return op_costs(g, m, *plan, 1, 100, 0)[2].kernels_s; };
  CHECK(attention_s() == doctest::Approx(flops / 1000e9));
  m.devices.back().more_gflops = 600;
  CHECK(attention_s() == doctest::Approx(flops / 100e9));
}

TEST_CASE("cost model: the bottleneck is what is busy longest") {
  const Graph g = small_graph();
  Machine m = machine_with({}, {});
  add_gpu(m, 1000, 0);
  m.links = {{"host", "gpu 0", 20, 0.1}, {"gpu 0", "host", 20, 0.1}};
  PlanRequest request = gpu_request();
  auto plan = make_plan(g, m, request);
  REQUIRE(plan.ok());
  CHECK(plan->prediction.bottleneck == "VRAM");
  CHECK(plan->prediction.bottleneck_share > 0.5);
  Holding& vram = plan->movement.sites[1];
  for (size_t i = 0; i < vram.resident.size(); ++i)
    if (plan->movement.weights.blocks[i].role == BlockRole::matrix) vram.resident[i] = false;
  plan->movement.sites[0].resident.assign(vram.resident.size(), true);
  CHECK(predict(g, m, *plan).bottleneck == "PCIe");
  CHECK(predict(g, m, *plan).bottleneck_share > 0.9);
  plan->movement.sites[0].resident.assign(vram.resident.size(), false);
  CHECK(predict(g, m, *plan).bottleneck == "disk");
}
