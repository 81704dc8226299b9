#include "engine/report.h"

#include <algorithm>

#include "engine/system.h"

namespace sluice::engine {
namespace {

PlacementReport place(const Graph& g, const plan::Plan& plan, TensorId id, const std::string& device) {
  const TensorSpec& t = g.tensor(id);
  PlacementReport report{t.name, std::string(info(t.dtype).name), device, 0, 0, 0, 0};
  for (const plan::Tile& tile : plan.movement.weights.of(id)) {
    const uint64_t bytes = (tile.row_end - tile.row_begin) * t.row_size();
    const bool resident = plan.host().resident[tile.block];
    (resident ? report.bytes_resident : report.bytes_streamed) += bytes;
    ++(resident ? report.tiles_resident : report.tiles_streamed);
  }
  return report;
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
  report.threads = b.cpu.n_threads;
  report.isa = cpu::kernels(b.cpu.isa).isa;
  if (!b.machine.devices.empty()) report.memory_gb_s = b.machine.devices.front().memory_gb_s;
  if (const TierRates* disk = b.machine.tier("disk"); disk != nullptr) report.disk_gb_s = disk->read_gb_s;
  return report;
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
  report.ram_budget = plan.host().budget;
  for (const plan::NamedBytes& item : plan.host().memory) report.memory.emplace_back(item.name, item.bytes);
  for (size_t i = 0; i < g.ops.size(); ++i) {
    const std::string name = layer_name(g.ops[i], report.layers.empty() ? "" : report.layers.back().name);
    if (report.layers.empty() || report.layers.back().name != name) report.layers.push_back({name, {}});
    std::vector<TensorId> ids = matrices(g.ops[i]);
    if (const auto* embed = std::get_if<EmbedOp>(&g.ops[i])) ids.push_back(embed->table);
    for (const TensorId id : ids)
      report.layers.back().tensors.push_back(place(g, plan, id, plan.numerics.sites[plan.numerics.decode.op_site[i]]));
  }
  for (size_t i = 0; i < plan.host().resident.size(); ++i)
    if (plan.host().resident[i]) report.resident_bytes += plan.movement.weights.blocks[i].bytes;
  report.disk_bytes_per_token = plan::traffic(g, plan, false).disk_bytes;
  report.kv_bytes = plan.kv_arena_bytes(plan::host_site);
  report.kv_spill_bytes = plan.movement.spill_bytes;
  report.decode_tok_s = plan.prediction.decode_tok_s;
  report.prefill_tok_s = plan.prediction.prefill_tok_s;
  report.prefill_tokens = plan.prediction.prefill_tokens;
  report.bottleneck = plan.prediction.bottleneck;
  report.machine = report_machine(b);
  return report;
}

MemoryReport report_memory(const Runtime& runtime) {
  const StoreStats disk = runtime.disk();
  return {runtime.ram().limit(), runtime.ram().peak(), peak_rss(), disk.bytes_read, disk.bytes_written};
}

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
  return {ram, disk};
}

}  // namespace sluice::engine
