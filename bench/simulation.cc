#include "bench/simulation.h"

#include <algorithm>
#include <optional>

#include "bench/virtual_machine.h"
#include "core/error.h"
#include "offload/plan/executor.h"

namespace sluice::bench {
namespace {

constexpr TierId kv_tier{1}, gpu_tier{2}, gpu_kv_tier{3}, gpu_lent_tier{4};
constexpr uint32_t measured_tokens = 3;

// One site's memory in parts: weights, KV, activations.
struct Site {
  Site(const Graph& g, const plan::Plan& plan, uint8_t site)
      : host(site == plan::host_site),
        weights(plan.movement.sites[site].weight_arena_bytes(), host),
        kv(plan.kv_arena_bytes(site), host),
        workspace(plan::workspace_bytes(g, plan, site), host),
        lent(workspace, workspace.capacity() - plan::lent_bytes(g, plan, site), plan::lent_bytes(g, plan, site)),
        weights_budget("weights", weights.capacity()),
        kv_budget("kv", kv.capacity()),
        lent_budget("lent", lent.capacity()) {}
  const bool host;
  VirtualMemory weights, kv, workspace;
  MemorySlice lent;  // of the workspace
  tier::Budget weights_budget, kv_budget, lent_budget;
};

}  // namespace

struct Simulation::Impl {
  Impl(const Graph& graph, const Machine& machine, const plan::Plan& p)
      : g(graph),
        plan(p),
        recorder(virtual_rates(machine)),
        store(recorder),
        link(recorder, link_lane),
        pages(recorder, pages_lane),
        host(graph, p, 0),
        tables(plan::table_bytes(graph, p), true) {
    if (p.movement.sites.size() > 1) gpu.emplace(graph, p, uint8_t{1});
    cpu_device = std::make_unique<VirtualDevice>(recorder, cpu_lane, host_tier, nullptr);
    if (gpu) gpu_device = std::make_unique<VirtualDevice>(recorder, gpu_lane, gpu_tier, &gpu->workspace);
  }

  Status start() {
    tier::TierManager::Options options;
    options.store = &store;
    options.max_blocks = plan::block_count(g, plan);
    tiers.emplace(options);
    tiers->add_tier("weights", host.weights, host.weights_budget);
    tiers->add_tier("kv", host.kv, host.kv_budget);
    if (gpu) {
      tiers->add_tier("weights in VRAM", gpu->weights, gpu->weights_budget);
      tiers->add_tier("KV in VRAM", gpu->kv, gpu->kv_budget);
      tiers->add_tier("lent in VRAM", gpu->lent, gpu->lent_budget);
      for (const TierId weights : {gpu_tier, gpu_lent_tier}) tiers->connect(host_tier, weights, link);
    }
    SLUICE_ASSIGN_OR_RETURN(auto made, plan::WeightBlocks::create(*tiers, plan.movement.weights));
    blocks.emplace(std::move(made));
    host_stream.emplace(*tiers, host_tier, *blocks, g, plan, uint8_t{0});
    if (gpu) gpu_stream.emplace(*tiers, gpu_tier, *blocks, g, plan, uint8_t{1}, gpu_lent_tier);
    make_kv();
    plan::Executor::Parts parts;
    parts.graph = &g;
    parts.plan = &plan;
    parts.store = &store;
    parts.kv = &*kv;
    parts.tables = tables.base();
    parts.sites = {{cpu_device.get(), &*host_stream, host.workspace.base(), nullptr}};
    if (gpu) parts.sites.push_back({gpu_device.get(), &*gpu_stream, gpu->workspace.base(), &link});
    executor.emplace(parts);
    if (gpu) SLUICE_RETURN_IF_ERROR(gpu_stream->load());
    SLUICE_RETURN_IF_ERROR(host_stream->load());
    SLUICE_ASSIGN_OR_RETURN(sequence, kv->create());
    return {};
  }

  void make_kv() {
    plan::KvStore::Options options = plan::KvStore::options_of(g, plan);
    const auto pool = [&](TierId tier, uint8_t site, CopyQueue* copies) {
      options.pools.push_back({tier, plan.movement.sites[site].kv_kept_pages, 0, copies});
    };
    pool(kv_tier, 0, nullptr);
    if (gpu) pool(gpu_kv_tier, 1, &pages);
    plan::StepTables step_tables;
    plan::lay_out_tables(g, plan, tables.base(), step_tables);
    options.tables = step_tables.pages;
    kv.emplace(*tiers, options);
  }

  // `n` more tokens, the last one of them wanting logits.
  Status step(uint32_t n, bool prompt) {
    Batch batch;
    batch.prompt = prompt;
    for (uint32_t i = 0; i < n; ++i)
      batch.tokens.push_back({0, static_cast<int32_t>(held + i), sequence, 0, i + 1 == n});
    SLUICE_RETURN_IF_ERROR(executor->step(batch).status());
    held += n;
    recorder.end_step();
    return {};
  }
  Status feed(uint32_t n) {
    for (uint32_t done = 0; done < n; done += plan.workspace.tokens)
      SLUICE_RETURN_IF_ERROR(step(std::min(plan.workspace.tokens, n - done), true));
    return {};
  }

  // Of the steps [first, end) that were recorded.
  Simulated measure(size_t first, size_t end, double parts) const {
    const Replay r = replay(recorder);
    const auto& steps = recorder.steps();
    const auto& commands = recorder.commands();
    const auto computes = [&](uint32_t id) { return commands[id].lane == cpu_lane || commands[id].lane == gpu_lane; };
    const auto last_of = [&](size_t step) {
      uint32_t id = steps[step] - 1;
      while (!computes(id)) --id;
      uint32_t best = id;
      for (uint32_t i = step == 0 ? 1 : steps[step - 1]; i < steps[step]; ++i)
        if (computes(i) && r.end_s[i] > r.end_s[best]) best = i;
      return best;
    };
    const uint32_t from = last_of(first - 1), to = last_of(end - 1);
    Simulated s;
    s.seconds = (r.end_s[to] - r.end_s[from]) / parts;
    const auto busy = [&](Lane lane) { return (r.busy_until[to][lane] - r.busy_until[from][lane]) / parts; };
    s.cpu_s = busy(cpu_lane), s.gpu_s = busy(gpu_lane), s.link_s = busy(link_lane), s.disk_s = busy(disk_lane);
    for (uint32_t i = steps[first - 1]; i < steps[end - 1]; ++i)
      if (commands[i].hand_over) s.hand_over_s += commands[i].seconds / parts;
    const auto idle = [&](Idle what) { return (r.idle_until[to][what] - r.idle_until[from][what]) / parts; };
    s.idle_link_s = idle(idle_link), s.idle_disk_s = idle(idle_disk), s.idle_s = idle(idle_all);
    return s;
  }

  const Graph& g;
  const plan::Plan& plan;
  Recorder recorder;
  VirtualStore store;
  VirtualCopyQueue link, pages;
  Site host;
  std::optional<Site> gpu;
  VirtualMemory tables;
  std::unique_ptr<VirtualDevice> cpu_device, gpu_device;
  std::optional<tier::TierManager> tiers;
  std::optional<plan::WeightBlocks> blocks;
  std::optional<plan::WeightStream> host_stream, gpu_stream;
  std::optional<plan::KvStore> kv;
  std::optional<plan::Executor> executor;
  SequenceId sequence;
  uint32_t held = 0;
};

Simulation::Simulation(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Simulation::~Simulation() = default;

Result<std::unique_ptr<Simulation>> Simulation::create(const Graph& graph, const Machine& machine,
                                                       const plan::Plan& plan) {
  if (plan.movement.spill_bytes > 0)
    return error(Code::unsupported, "{}: KV that goes to disk is not simulated", graph.name);
  auto impl = std::make_unique<Impl>(graph, machine, plan);
  SLUICE_RETURN_IF_ERROR(impl->start());
  return std::unique_ptr<Simulation>(new Simulation(std::move(impl)));
}

Result<Simulated> Simulation::decode(uint32_t depth) {
  Impl& i = *impl_;
  SLUICE_RETURN_IF_ERROR(i.feed(depth - i.held));
  i.recorder.start_over();
  for (uint32_t token = 0; token < 2 + measured_tokens; ++token) SLUICE_RETURN_IF_ERROR(i.step(1, false));
  const size_t n = i.recorder.steps().size();
  return i.measure(n - measured_tokens, n, measured_tokens);
}

Result<Simulated> Simulation::prompt(uint32_t n) {
  Impl& i = *impl_;
  SLUICE_RETURN_IF_ERROR(i.kv->truncate(i.sequence, 0));
  i.held = 0;
  i.recorder.start_over();
  SLUICE_RETURN_IF_ERROR(i.step(1, false));
  SLUICE_RETURN_IF_ERROR(i.kv->truncate(i.sequence, 0));
  i.held = 0;
  SLUICE_RETURN_IF_ERROR(i.feed(n));
  return i.measure(1, i.recorder.steps().size(), 1);
}

}  // namespace sluice::bench
