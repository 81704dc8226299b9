#include "engine/report.h"

#include <algorithm>

#include "engine/stalls.h"
#include "engine/system.h"

namespace sluice::engine {
namespace {

// Of the rows of a matrix, those that `site` computes when decoding.
void add_rows(const Graph& g, const plan::Plan& plan, TensorId id, size_t op, uint8_t site, PlacementReport& report) {
  const plan::Rows rows = plan::rows_at(g, plan.numerics.decode, op, id, site);
  for (const plan::Tile& tile : plan.movement.weights.of(id)) {
    const plan::Rows part = tile.within(rows);
    if (part.begin == part.end) continue;
    const uint64_t bytes = (part.end - part.begin) * g.tensor(id).row_size();
    const bool resident = plan.movement.sites[site].stays(tile.block, false);
    (resident ? report.bytes_resident : report.bytes_streamed) += bytes;
    ++(resident ? report.tiles_resident : report.tiles_streamed);
  }
}

SplitReport split_of(const Graph& g, const plan::Plan& plan, bool prompt, TensorId id, size_t op) {
  const plan::Placement& placement = plan.numerics.placement(prompt);
  const plan::Rows rows = plan::rows_at(g, placement, op, id, placement.op_site[op]);
  if (rows.end == g.tensor(id).rows) return {};
  return {rows.end, plan.numerics.sites[placement.split(op).site]};
}

PlacementReport place(const Graph& g, const plan::Plan& plan, TensorId id, size_t op) {
  const TensorSpec& t = g.tensor(id);
  PlacementReport report;
  report.tensor = t.name;
  report.type = info(t.dtype).name;
  report.device = plan.numerics.sites[plan.numerics.decode.op_site[op]];
  report.prompt_device = plan.numerics.sites[plan.numerics.prompt.op_site[op]];
  report.rows = t.rows;
  report.split = split_of(g, plan, false, id, op);
  report.prompt_split = split_of(g, plan, true, id, op);
  for (uint8_t site = 0; site < plan.movement.sites.size(); ++site) add_rows(g, plan, id, op, site, report);
  return report;
}

// Bytes of the tensors that each site keeps.
void add_held(const Graph& g, const plan::Plan& plan, TensorId id, std::vector<uint64_t>& held) {
  held.resize(plan.movement.sites.size());
  for (const plan::Tile& tile : plan.movement.weights.of(id))
    for (size_t site = 0; site < held.size(); ++site)
      if (plan.movement.sites[site].stays(tile.block, false))
        held[site] += (tile.row_end - tile.row_begin) * g.tensor(id).row_size();
}

std::string layer_name(const Op& op, const std::string& current) {
  if (std::holds_alternative<EmbedOp>(op)) return "embed";
  if (std::holds_alternative<HeadOp>(op)) return "head";
  if (const auto* in = std::get_if<AttentionInOp>(&op)) return std::to_string(in->layer);
  return current;
}

MachineReport report_machine(const Blueprint& b) {
  MachineReport report;
  report.cpu = b.machine.name;
  report.name = b.machine.name;
  report.threads = b.cpu.n_threads;
  report.no_gpu = b.no_gpu;
  report.isa = cpu::kernels(b.cpu.isa).isa;
  report.prompts = b.cpu_library;
  if (!b.machine.devices.empty()) report.memory_gb_s = b.machine.devices.front().memory_gb_s;
  if (const TierRates* disk = b.machine.tier("disk"); disk != nullptr) report.disk_gb_s = disk->read_gb_s;
  return report;
}

std::vector<LayerReport> report_layers(const Graph& g, const plan::Plan& plan) {
  std::vector<LayerReport> layers;
  for (size_t i = 0; i < g.ops.size(); ++i) {
    const std::string name = layer_name(g.ops[i], layers.empty() ? "" : layers.back().name);
    if (layers.empty() || layers.back().name != name) layers.emplace_back().name = name;
    LayerReport& layer = layers.back();
    std::vector<TensorId> ids = matrices(g.ops[i]);
    if (const auto* embed = std::get_if<EmbedOp>(&g.ops[i])) ids.push_back(embed->table);
    for (const TensorId id : ids) {
      layer.tensors.push_back(place(g, plan, id, i));
      add_held(g, plan, id, layer.held);
    }
    if (const auto* attention = std::get_if<AttentionOp>(&g.ops[i])) {
      const uint8_t site = plan.numerics.kv_site[attention->layer];
      layer.kv_device = plan.numerics.sites[site];
      if (site != plan::host_site && plan.numerics.has_far_pages())
        layer.kv_near = static_cast<uint32_t>(plan.numerics.near_tokens());
    }
    if (i < plan.prediction.op_s.size()) layer.decode_ms += plan.prediction.op_s[i] * 1e3;
  }
  return layers;
}

double link_rate(const Machine& machine, const std::string& device) {
  for (const LinkRates& link : machine.links)
    if (link.from == "host" && link.to == device) return link.gb_s;
  return 0;
}

std::vector<DeviceReport> report_devices(const Blueprint& b, const plan::Traffic& traffic) {
  const plan::Plan& plan = b.plan;
  std::vector<DeviceReport> devices;
  for (size_t site = 0; site < plan.movement.sites.size(); ++site) {
    const plan::Holding& holding = plan.movement.sites[site];
    DeviceReport d;
    d.name = plan.numerics.sites[site];
    d.memory = site == plan::host_site ? "ram" : "vram";
    d.budget = holding.budget;
    for (size_t i = 0; i < holding.lent.size(); ++i)
      if (holding.lent[i]) d.lent_bytes += plan.movement.weights.blocks[i].slot_bytes;
    d.small_step = plan.movement.small_step;
    d.weight_bytes = holding.resident_bytes + d.lent_bytes;
    d.kv_bytes = plan.kv_arena_bytes(site);
    d.staging_bytes = holding.staging_bytes;
    d.computed_bytes = traffic.computed_bytes[site];
    d.streamed_bytes = traffic.link_bytes[site];
    if (const DeviceRates* rates = b.machine.device(d.name); rates != nullptr) d.memory_gb_s = rates->memory_gb_s;
    d.link_gb_s = link_rate(b.machine, d.name);
    for (const plan::NamedBytes& item : holding.memory) d.given.emplace_back(item.name, item.bytes);
    devices.push_back(std::move(d));
  }
  return devices;
}

}  // namespace

PlanReport report_plan(const Blueprint& b) {
  const Graph& g = b.model.graph;
  const plan::Plan& plan = b.plan;
  PlanReport report;
  report.model = b.options.model;
  report.numerics_hash = plan.numerics.hash();
  report.precision = plan.numerics.compute == Compute::f32 ? "f32" : "fast";
  report.kv_type = plan.numerics.kv_type == KvType::f32 ? "F32" : "F16";
  report.context = plan.context;
  report.batch = plan.workspace.tokens;
  report.short_prompt = plan.numerics.short_prompt;
  report.ram_budget = plan.host().budget;
  for (const plan::NamedBytes& item : plan.host().memory) report.memory.emplace_back(item.name, item.bytes);
  report.layers = report_layers(g, plan);
  for (size_t i = 0; i < plan.host().resident.size(); ++i)
    if (plan.host().resident[i]) report.resident_bytes += plan.movement.weights.blocks[i].bytes;
  const plan::Traffic traffic = plan::traffic(g, plan, false, plan.prediction.decode_depth);
  report.disk_bytes_per_token = traffic.disk_bytes;
  report.hand_overs_per_token = traffic.hand_overs;
  report.devices = report_devices(b, traffic);
  for (const plan::PromptRate& rate : plan.prediction.prefill) report.prefill.push_back({rate.tokens, rate.tok_s});
  report.kv_bytes = plan.kv_arena_bytes(plan::host_site);
  report.kv_spill_bytes = plan.movement.spill_bytes;
  report.decode_tok_s = plan.prediction.decode_tok_s;
  report.prefill_tok_s = plan.prediction.prefill_tok_s;
  report.prefill_tokens = plan.prediction.prefill_tokens;
  report.bottleneck = plan.prediction.bottleneck;
  report.bottleneck_share = plan.prediction.bottleneck_share;
  report.machine = report_machine(b);
  return report;
}

MemoryReport report_memory(const Runtime& runtime) {
  const StoreStats disk = runtime.disk();
  return {runtime.ram().limit(), runtime.ram().peak(), peak_rss(), disk.bytes_read, disk.bytes_written};
}

StallReport report_stalls(const Runtime& runtime) {
  return runtime.trace() != nullptr ? find_stalls(*runtime.trace()) : StallReport{};
}

namespace {

// How long kernels and copies took is known to traces alone: no rates without one.
void add_accelerator_tiers(const Runtime& runtime, size_t i, const StallReport& traced,
                           std::vector<TierReport>& tiers) {
  const Accelerator& accelerator = *runtime.accelerators()[i];
  const Machine& machine = runtime.blueprint().machine;
  const std::string& id = runtime.plan().numerics.sites[i + 1];  // and lane
  const DeviceRates* device = machine.device(id);
  const double memory = device != nullptr ? device->memory_gb_s : 0;
  tiers.push_back(
      {"vram", accelerator.budget().used(), accelerator.gpu().bytes_computed_on(), lane_gb_s(traced, id), memory});
  tiers.push_back(
      {"pcie", 0, accelerator.gpu().bytes_to_device(), lane_gb_s(traced, id + " h2d"), link_rate(machine, id)});
}

}  // namespace

std::vector<TierReport> report_tiers(const Runtime& runtime) {
  const MachineReport machine = report_machine(runtime.blueprint());
  TierReport ram{"ram", runtime.ram().used(), 0, 0, machine.memory_gb_s};
  uint64_t busy_ns = 0;
  for (const cpu::KernelTotals& kernel : runtime.device().totals()) {
    ram.bytes_read += kernel.bytes;
    busy_ns += kernel.busy_ns;
  }
  if (busy_ns > 0) ram.gb_s = static_cast<double>(ram.bytes_read) / static_cast<double>(busy_ns);

  const StoreStats stats = runtime.disk();
  TierReport disk{"disk", runtime.blueprint().model.file_bytes, stats.bytes_read, 0, machine.disk_gb_s};
  if (stats.busy_ns > 0) disk.gb_s = static_cast<double>(stats.bytes_read) / static_cast<double>(stats.busy_ns);
  std::vector<TierReport> tiers = {ram, disk};
  if (runtime.accelerators().empty()) return tiers;
  const StallReport traced = report_stalls(runtime);
  for (size_t i = 0; i < runtime.accelerators().size(); ++i) add_accelerator_tiers(runtime, i, traced, tiers);
  return tiers;
}

}  // namespace sluice::engine
