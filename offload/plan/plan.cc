#include "offload/plan/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <utility>

namespace sluice::plan {
namespace {

// each(tile) for the tiles that `site` reads in a pass, in their order.
template <class F>
void for_each_tile(const Graph& graph, const Plan& plan, bool prompt, uint8_t site, F each) {
  const Placement& placement = plan.numerics.placement(prompt);
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    if (placement.op_site[i] != site) continue;
    for (const TensorId id : matrices(graph.ops[i]))
      for (const Tile& tile : plan.movement.weights.of(id)) each(tile);
  }
}

// Where the values of a pass are while the ops are walked through; as the Executor has it.
class Values {
 public:
  Values(const Graph& g, const Placement& placement, std::vector<HandOver>& out) : g_(g), p_(placement), out_(out) {}

  void run() {
    const uint32_t q = g_.n_heads * g_.head_dim, kv = g_.n_kv_heads * g_.head_dim;
    for (op_ = 0; op_ < g_.ops.size(); ++op_) {
      const Op& op = g_.ops[op_];
      if (std::holds_alternative<AttentionInOp>(op)) {
        bring(residual_, {g_.hidden_size});
        made(qkv_);
      } else if (std::holds_alternative<AttentionOp>(op)) {
        bring(qkv_, {q, kv, kv});
        made(attended_);
      } else {
        if (op_ != 0) bring(residual_, {g_.hidden_size});
        if (std::holds_alternative<AttentionOutOp>(op)) bring(attended_, {q});
        if (!std::holds_alternative<RouteOp>(op)) made(residual_);
      }
    }
  }

 private:
  struct Where {
    uint32_t present = 0;  // bit s: site s has it
    uint8_t made_at = 0;
  };
  uint8_t site() const { return p_.op_site[op_]; }
  void made(Where& value) const { value = {1u << site(), site()}; }
  // Of these widths: what goes together is at the same sites.
  void bring(Where& value, std::initializer_list<uint32_t> widths) {
    if ((value.present >> site() & 1) != 0) return;
    for (const uint32_t width : widths) out_.push_back({static_cast<uint32_t>(op_), value.made_at, site(), width});
    value.present |= 1u << site();
  }

  const Graph& g_;
  const Placement& p_;
  std::vector<HandOver>& out_;
  size_t op_ = 0;
  Where residual_, qkv_, attended_;
};

}  // namespace

std::vector<HandOver> hand_overs(const Graph& graph, const Placement& placement) {
  std::vector<HandOver> out;
  Values(graph, placement, out).run();
  return out;
}

std::string Numerics::hash() const {
  std::string text =
      fmt::format("compute={} kv={} page={}", static_cast<int>(compute), static_cast<int>(kv_type), page_tokens);
  for (const std::vector<uint8_t>* list : {&kv_site, &decode.op_site, &prompt.op_site}) {
    text += " |";
    for (const uint8_t site : *list) text += " " + sites[site];
  }
  for (const std::string& library : libraries) text += " | " + library;
  uint64_t h = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : text) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return fmt::format("{:016x}", h);
}

bool Plan::computes(uint8_t site) const {
  const auto has = [site](const Placement& p) { return std::count(p.op_site.begin(), p.op_site.end(), site) > 0; };
  return has(numerics.decode) || has(numerics.prompt);
}

uint64_t workspace_bytes(const Graph& graph, const Plan& plan, uint8_t site) {
  Workspace unused;
  return plan.computes(site)
             ? lay_out(graph, plan.workspace, site != host_site, plan.movement.pages_per_sequence, nullptr, unused)
             : 0;
}

namespace {

// Rows of a table that is in the host's memory are read there by the host, and copied for the others.
uint64_t lay_out_for(const Graph& graph, const Plan& plan, std::byte* base, StepTables& out) {
  const bool at_host =
      plan.numerics.decode.op_site.front() == host_site && plan.numerics.prompt.op_site.front() == host_site;
  const bool gathers = !at_host || !plan.movement.table_resident;
  return lay_out(graph, plan.workspace, plan.movement.pages_per_sequence, gathers, base, out);
}

}  // namespace

uint64_t table_bytes(const Graph& graph, const Plan& plan) {
  StepTables unused;
  return lay_out_for(graph, plan, nullptr, unused);
}

void lay_out_tables(const Graph& graph, const Plan& plan, std::byte* base, StepTables& out) {
  lay_out_for(graph, plan, base, out);
}

uint32_t block_count(const Graph& graph, const Plan& plan) {
  constexpr uint64_t spare = 64;  // pages that are being copied or dropped
  const uint64_t pages = 2ull * graph.n_layers * plan.movement.pages_per_sequence * plan.workspace.sequences;
  return static_cast<uint32_t>(plan.movement.weights.blocks.size() + pages + spare);
}

std::vector<uint32_t> block_uses(const Graph& graph, const Plan& plan, bool prompt, uint8_t site) {
  std::vector<uint32_t> uses(plan.movement.weights.blocks.size(), 0);
  for_each_tile(graph, plan, prompt, site, [&](const Tile& tile) { ++uses[tile.block]; });
  return uses;
}

std::vector<uint32_t> streamed_blocks(const Graph& graph, const Plan& plan, bool prompt, uint8_t site) {
  std::vector<uint32_t> order;
  std::vector<bool> seen = plan.movement.sites[site].resident;
  for_each_tile(graph, plan, prompt, site, [&](const Tile& tile) {
    if (!seen[tile.block]) order.push_back(tile.block);
    seen[tile.block] = true;
  });
  return order;
}

Traffic traffic(const Graph& graph, const Plan& plan, bool prompt) {
  const Movement& m = plan.movement;
  Traffic t;
  t.computed_bytes.assign(m.sites.size(), 0);
  t.link_bytes.assign(m.sites.size(), 0);
  uint32_t last = UINT32_MAX;
  for (const HandOver& h : hand_overs(graph, plan.numerics.placement(prompt)))
    t.hand_overs += std::exchange(last, h.op) != h.op;
  std::vector<bool> in_memory = plan.host().resident;  // or read before in this pass
  for (uint8_t site = 0; site < m.sites.size(); ++site) {
    for_each_tile(graph, plan, prompt, site, [&](const Tile& tile) {
      const TensorSpec& tensor = graph.tensor(tile.tensor);
      t.computed_bytes[site] += (tile.row_end - tile.row_begin) * tensor.row_size();
    });
    for (const uint32_t block : streamed_blocks(graph, plan, prompt, site)) {
      if (site != host_site) t.link_bytes[site] += m.weights.blocks[block].bytes;
      if (!in_memory[block]) t.disk_bytes += m.weights.blocks[block].bytes;
    }
  }
  return t;
}

}  // namespace sluice::plan
