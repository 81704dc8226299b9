#include "engine/advice.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <set>

namespace sluice::engine {
namespace {

constexpr uint64_t more_vram = 8 * GiB, more_ram = 16 * GiB;
constexpr double faster = 2;
constexpr double worth_telling = 1.03;

// What a site holds beside what the planner gives out.
std::vector<plan::NamedBytes> fixed_of(const plan::Holding& holding) {
  static const std::set<std::string> planned = {"scratch", "workspace", "weights", "staging", "kv"};
  std::vector<plan::NamedBytes> fixed;
  for (const plan::NamedBytes& item : holding.memory)
    if (planned.count(item.name) == 0) fixed.push_back(item);
  return fixed;
}

// The request that gave this plan.
plan::PlanRequest request_of(const Blueprint& b) {
  const plan::Plan& p = b.plan;
  plan::PlanRequest r;
  for (size_t site = 1; site < p.movement.sites.size(); ++site) {
    const plan::Holding& holding = p.movement.sites[site];
    r.accelerators.push_back({p.numerics.sites[site], holding.budget, holding.scratch_bytes, fixed_of(holding), false});
  }
  r.ram_budget = p.host().budget;
  r.fixed = fixed_of(p.host());
  r.context = p.context;
  r.sequences = p.workspace.sequences;
  r.step_tokens = b.options.batch;
  r.logit_rows = p.workspace.logit_rows;
  r.taps = p.workspace.taps;
  r.compute = p.numerics.compute;
  r.page_tokens = p.numerics.page_tokens;
  r.spill_limit = std::numeric_limits<uint64_t>::max();
  return r;
}

void speed_up_disk(Machine& machine) {
  for (TierRates& tier : machine.tiers) {
    if (tier.id != "disk") continue;
    tier.read_gb_s *= faster;
    tier.read_beside_gb_s *= faster;
  }
}

void speed_up_links(Machine& machine) {
  for (LinkRates& link : machine.links) {
    link.gb_s *= faster;
    link.beside_gb_s *= faster;
  }
}

void speed_up_memory(Machine& machine) {
  DeviceRates& cpu = machine.devices.front();
  cpu.memory_gb_s *= faster;
  for (auto* rates : {&cpu.matvec_gb_s, &cpu.matvec_f32_gb_s})
    for (auto& [type, rate] : *rates) rate *= faster;
  for (ProductTimes& product : cpu.products) product.one_us /= faster;
}

}  // namespace

std::vector<HelpReport> advise(const Blueprint& b) {
  std::vector<HelpReport> helps;
  const auto with = [&](const char* what, const std::function<void(plan::PlanRequest&, Machine&)>& change) {
    plan::PlanRequest request = request_of(b);
    Machine machine = b.machine;
    change(request, machine);
    const auto plan = plan::make_plan(b.model.graph, machine, request);
    if (plan.ok() && plan->prediction.decode_tok_s > worth_telling * b.plan.prediction.decode_tok_s)
      helps.push_back({what, plan->prediction.decode_tok_s});
  };
  const bool accelerated = b.plan.movement.sites.size() > 1;
  if (accelerated)
    with("8 GiB more VRAM", [](auto& request, auto&) { request.accelerators.front().budget += more_vram; });
  with("16 GiB more RAM", [](auto& request, auto&) { request.ram_budget += more_ram; });
  with("a disk twice as fast", [](auto&, auto& machine) { speed_up_disk(machine); });
  if (accelerated) with("PCIe twice as fast", [](auto&, auto& machine) { speed_up_links(machine); });
  with("RAM twice as fast", [](auto&, auto& machine) { speed_up_memory(machine); });
  std::stable_sort(helps.begin(), helps.end(),
                   [](const HelpReport& x, const HelpReport& y) { return x.decode_tok_s > y.decode_tok_s; });
  return helps;
}

}  // namespace sluice::engine
