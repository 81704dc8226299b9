#include "tests/plan/rig.h"

#include <cmath>
#include <cstring>
#include <random>

namespace sluice::testing {

Machine test_machine() {
  Machine m;
  DeviceRates cpu;
  cpu.id = "cpu";
  cpu.memory_gb_s = 20;
  cpu.call_us = 1;
  m.devices.push_back(cpu);
  m.tiers.push_back({"host", 16 * GiB, 20, 20});
  m.tiers.push_back({"disk", 100 * GiB, 0.05, 0.05});
  return m;
}

plan::Plan PlanRig::make_plan() const {
  plan::PlanRequest request;
  request.ram_budget = options.ram != 0 ? options.ram : 4 * GiB;
  request.context = options.context;
  request.sequences = options.sequences;
  request.step_tokens = options.step_tokens;
  request.logit_rows = options.logit_rows;
  request.taps = options.taps;
  request.compute = options.compute;
  request.page_tokens = options.page_tokens;
  request.spill_limit = 1 * GiB;
  auto made = plan::make_plan(model.graph, test_machine(), request);
  REQUIRE_MESSAGE(made.ok(), made.status().message());
  plan::Plan p = std::move(*made);
  if (options.ram == 0) force(p);
  if (options.placed)
    place(model.graph, p,
          {"sim", options.placed, options.split, options.device_resident, options.near_pages, 0, options.small_step});
  return p;
}

// The least staging and KV that the options allow, so that everything is under pressure.
void PlanRig::force(plan::Plan& p) const {
  plan::Movement& m = p.movement;
  plan::Holding& host = m.sites.front();
  m.weights = plan::cut(model.graph, options.tile_bytes);
  host.resident.assign(m.weights.blocks.size(), false);
  host.resident_bytes = 0;
  double carried = 0;
  bool all = true;
  for (size_t i = 0; i < m.weights.blocks.size(); ++i) {
    const plan::WeightBlock& b = m.weights.blocks[i];
    bool stays = b.role == plan::BlockRole::vector;
    if (b.role == plan::BlockRole::matrix) {
      carried += options.resident;
      stays = carried >= 0.999;
      if (stays) carried -= 1;
    }
    if (b.role == plan::BlockRole::table) stays = options.resident >= 1;
    host.resident[i] = stays;
    if (stays) host.resident_bytes += b.slot_bytes;
    all &= stays;
  }
  m.table_resident = options.resident >= 1;
  const uint64_t largest =
      std::max(m.weights.largest_slot(plan::BlockRole::matrix), m.weights.largest_slot(plan::BlockRole::expert));
  host.staging_bytes = all ? 0 : 3 * largest;
  host.ahead_bytes = largest;
  if (options.kv_groups == 0) return;
  const uint64_t tails = 2ull * model.graph.n_layers * options.sequences;
  const uint64_t filling = 4 * (div_up(options.step_tokens, options.page_tokens) + options.sequences);
  host.kv_group_pages = options.kv_groups;
  host.kv_kept_pages = options.kv_kept;
  host.kv_pages =
      static_cast<uint32_t>(tails + filling + 4ull * options.sequences * options.kv_groups + options.kv_kept);
  m.spill_bytes = 2ull * model.graph.n_layers * options.sequences * m.pages_per_sequence * m.page_slot_bytes;
}

PlanRig::PlanRig(const TinyModel& tiny, const PlanRigOptions& o)
    : model(tiny), options(o), plan(make_plan()), store(o.store) {
  const Graph& g = model.graph;
  const uint64_t weights_bytes = plan.host().weight_arena_bytes(), kv_arena = plan.kv_arena_bytes(plan::host_site);
  weights_memory = std::make_unique<SimMemory>(weights_bytes, true);
  kv_memory = std::make_unique<SimMemory>(kv_arena, true);
  workspace = std::make_unique<SimMemory>(plan::workspace_bytes(g, plan, plan::host_site), true);
  tables = std::make_unique<SimMemory>(plan::table_bytes(g, plan), true);
  weights_budget = std::make_unique<tier::Budget>("weights", weights_bytes);
  kv_budget = std::make_unique<tier::Budget>("kv", kv_arena);
  store.add_file("model", model.file);
  REQUIRE(store.open("model").value() == FileId{0});

  cpu::CpuOptions cpu;
  cpu.n_threads = o.threads;
  cpu.pin = false;
  cpu.prompts = o.prompts;
  device = std::move(cpu::CpuDevice::create(cpu).value());
  tier::TierManager::Options t;
  t.store = &store;
  t.spill_directory = "spill";
  t.spill_bytes = plan.movement.spill_bytes;
  t.max_blocks = 4096;
  tiers = std::make_unique<tier::TierManager>(t);
  REQUIRE(tiers->add_tier("weights", *weights_memory, *weights_budget) == host_tier);
  tiers->add_tier("kv", *kv_memory, *kv_budget);
  if (o.policy != nullptr || o.placed) add_accelerator();
  blocks.emplace(std::move(plan::WeightBlocks::create(*tiers, plan.movement.weights).value()));
  weights.emplace(*tiers, host_tier, *blocks, g, plan, plan::host_site);

  plan::KvStore::Options k = plan::KvStore::options_of(g, plan);
  k.pools = {{TierId{1}, plan.host().kv_kept_pages, plan.host().kv_group_pages, nullptr}};
  if (o.placed) k.pools.push_back({TierId{3}, plan.movement.sites[1].kv_kept_pages, 0, within.get()});
  plan::StepTables step_tables;
  plan::lay_out_tables(g, plan, tables->base(), step_tables);
  k.tables = step_tables.pages;
  kv = std::make_unique<plan::KvStore>(*tiers, k);

  if (!plan.movement.weights.op_experts.empty()) {
    plan::ExpertRunner::Options e;
    e.graph = &g;
    e.plan = &plan;
    e.tiers = tiers.get();
    e.weights = &*weights;
    e.host = device.get();
    e.accelerator = accelerator.get();
    e.accelerator_experts = o.accelerator_experts;
    e.policy = o.policy;
    experts = std::make_unique<plan::ExpertRunner>(e);
  }
  plan::Executor::Parts parts;
  parts.graph = &g;
  parts.plan = &plan;
  parts.store = &store;
  parts.kv = kv.get();
  parts.sites = {{device.get(), &*weights, plan.computes(plan::host_site) ? workspace->base() : nullptr, nullptr}};
  if (o.placed) {
    device_weights.emplace(*tiers, TierId{2}, *blocks, g, plan, 1, TierId{4});
    parts.sites.push_back({accelerator.get(), &*device_weights, device_workspace->base(), up.get()});
  }
  parts.tables = tables->base();
  parts.experts = experts.get();
  parts.trace = o.trace;
  parts.ranges = o.ranges;
  executor = std::make_unique<plan::Executor>(parts);
  Status loaded = weights->load();
  if (loaded.ok() && device_weights) loaded = device_weights->load();
  REQUIRE_MESSAGE(loaded.ok(), loaded.message());
}

// One for routed experts alone, or a site of the plan.
void PlanRig::add_accelerator() {
  uint64_t slots = (options.accelerator_experts + 1) * plan.movement.weights.largest_slot(plan::BlockRole::expert);
  if (options.placed) slots = plan.movement.sites[1].weight_arena_bytes();
  device_memory = std::make_unique<SimMemory>(slots, false);
  device_budget = std::make_unique<tier::Budget>("device", slots);
  const TierId id = tiers->add_tier("device", *device_memory, *device_budget);
  SimCopyQueue::Options copies;
  copies.latency = options.copy_latency;
  up = std::make_unique<SimCopyQueue>(copies);
  tiers->connect(host_tier, id, *up);
  cpu::CpuOptions one;
  one.n_threads = 1;
  one.pin = false;
  one.prompts = options.prompts;
  accelerator = std::make_unique<SimDevice>(std::move(cpu::CpuDevice::create(one).value()), id);
  if (!options.placed) return;
  device_workspace = std::make_unique<SimMemory>(plan::workspace_bytes(model.graph, plan, 1), false);
  device_kv = std::make_unique<SimMemory>(std::max(io_unit, plan.kv_arena_bytes(1)), false);
  device_kv_budget = std::make_unique<tier::Budget>("device kv", device_kv->capacity());
  tiers->add_tier("device kv", *device_kv, *device_kv_budget);
  const uint64_t lent = plan::lent_bytes(model.graph, plan, 1);
  device_lent.emplace(*device_workspace, device_workspace->capacity() - lent, lent);
  device_lent_budget = std::make_unique<tier::Budget>("device lent", lent);
  tiers->connect(host_tier, tiers->add_tier("device lent", *device_lent, *device_lent_budget), *up);
  within = std::make_unique<SimCopyQueue>();
}

// Everything that was held is given back, in whatever state a test left it.
PlanRig::~PlanRig() {
  executor.reset();
  experts.reset();
  kv.reset();
  device_weights.reset();
  weights.reset();
  blocks.reset();
  settle();
  CHECK(weights_budget->used() == 0);
  CHECK(kv_budget->used() == 0);
  if (device_budget) CHECK(device_budget->used() == 0);
  if (device_kv_budget) CHECK(device_kv_budget->used() == 0);
  if (device_lent_budget) CHECK(device_lent_budget->used() == 0);
  tiers.reset();
  CHECK(store.stats().in_flight == 0);
  CHECK(store.open_files() == 1);
}

void PlanRig::settle() {
  for (;;) {
    tiers->poll();
    const tier::TransferStats t = tiers->transfers();
    Event next;
    const uint16_t n_tiers = device_kv ? 5 : device_memory ? 3 : 2;
    for (uint16_t i = 0; i < n_tiers && next == Event(); ++i) next = tiers->pending(TierId{i});
    if (next == Event() && t.started == t.done + t.failed + t.cancelled) return;
    if (next == Event()) std::this_thread::sleep_for(std::chrono::microseconds(50));
    else next.wait().ignore();
  }
}

SequenceId PlanRig::sequence() {
  const auto made = kv->create();
  REQUIRE_MESSAGE(made.ok(), made.status().message());
  return *made;
}

void PlanRig::append(Batch& batch, SequenceId id, const std::vector<int32_t>& tokens, size_t first,
                     size_t count) const {
  const uint32_t before = length(id);
  for (size_t i = 0; i < count; ++i)
    batch.tokens.push_back({tokens[first + i], static_cast<int32_t>(before + i), id, 0, true});
}

Result<std::vector<Floats>> PlanRig::step(const Batch& batch) {
  SLUICE_ASSIGN_OR_RETURN(const plan::StepResult r, executor->step(batch));
  std::vector<Floats> rows;
  const uint64_t n = model.graph.n_vocab;
  for (uint64_t i = 0; i < r.n_rows; ++i) rows.emplace_back(r.logits + i * n, r.logits + (i + 1) * n);
  return rows;
}

Result<std::vector<Floats>> PlanRig::try_feed(SequenceId id, const std::vector<int32_t>& tokens, size_t chunk) {
  std::vector<Floats> rows;
  for (size_t done = 0; done < tokens.size(); done += chunk) {
    Batch batch;
    batch.prompt = options.prompts != cpu::Prompts::int8;
    append(batch, id, tokens, done, std::min(chunk, tokens.size() - done));
    SLUICE_ASSIGN_OR_RETURN(auto some, step(batch));
    rows.insert(rows.end(), some.begin(), some.end());
  }
  return rows;
}

std::vector<Floats> PlanRig::feed(SequenceId id, const std::vector<int32_t>& tokens, size_t chunk) {
  auto rows = try_feed(id, tokens, chunk);
  REQUIRE_MESSAGE(rows.ok(), rows.status().message());
  return std::move(*rows);
}

std::vector<int32_t> random_tokens(size_t n, uint64_t seed, uint32_t n_vocab) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> tokens(n);
  for (int32_t& t : tokens) t = static_cast<int32_t>(random() % n_vocab);
  return tokens;
}

bool same_bits(const std::vector<Floats>& a, const std::vector<Floats>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (a[i].size() != b[i].size() || std::memcmp(a[i].data(), b[i].data(), a[i].size() * 4) != 0) return false;
  return true;
}

double distance(const Floats& got, const std::vector<double>& want) {
  if (got.size() != want.size()) return INFINITY;
  double most = 0, apart = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(got[i])) return INFINITY;
    most = std::max(most, std::abs(want[i]));
    apart = std::max(apart, std::abs(static_cast<double>(got[i]) - want[i]));
  }
  return apart / most;
}

}  // namespace sluice::testing
