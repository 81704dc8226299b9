#include "engine/advice.h"

#include <algorithm>
#include <functional>
#include <limits>

namespace sluice::engine {
namespace {

constexpr uint64_t more_vram = 8 * GiB, more_ram = 16 * GiB;
constexpr double faster = 2;
constexpr double worth_telling = 1.03;

// That of the plan with the places that were chosen by hand; what others do with the disk is left out.
plan::PlanRequest request_without_limits(const Blueprint& b) {
  plan::PlanRequest r = b.request;
  r.depth = 0;
  r.spill_limit = std::numeric_limits<uint64_t>::max();
  r.accelerators.resize(b.plan.movement.sites.size() - 1);  // those that the plan uses
  for (plan::AcceleratorRequest& accelerator : r.accelerators) accelerator.wanted = false;
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
    plan::PlanRequest request = request_without_limits(b);
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
