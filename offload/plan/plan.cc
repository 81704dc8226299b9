#include "offload/plan/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <utility>

namespace sluice::plan {
namespace {

// each(tile, rows) for the tiles of which `site` reads rows in a pass, in their order.
template <class F>
void for_each_tile(const Graph& graph, const Plan& plan, bool prompt, uint8_t site, F each) {
  const Placement& placement = plan.numerics.placement(prompt);
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    if (placement.op_site[i] != site && placement.split(i).row == 0) continue;
    for (const TensorId id : matrices(graph.ops[i])) {
      const Rows rows = rows_at(graph, placement, i, id, site);
      for (const Tile& tile : plan.movement.weights.of(id))
        if (const Rows part = tile.within(rows); part.begin < part.end) each(tile, part.end - part.begin);
    }
  }
}

bool divisible(const Op& op, TensorId matrix) {
  const auto* ffn = std::get_if<FfnOp>(&op);
  return ffn != nullptr && matrix != ffn->down;
}

// Where the values of a pass are while the ops are walked through; as the Executor has it.
class Values {
 public:
  Values(const Graph& g, const Placement& placement, bool far, std::vector<HandOver>& out)
      : g_(g), p_(placement), far_(far), out_(out) {}

  void run() {
    const uint32_t q = g_.n_heads * g_.head_dim, kv = g_.n_kv_heads * g_.head_dim;
    for (op_ = 0; op_ < g_.ops.size(); ++op_) {
      const Op& op = g_.ops[op_];
      if (std::holds_alternative<AttentionInOp>(op)) {
        bring(residual_, {g_.hidden_size});
        made(qkv_);
      } else if (std::holds_alternative<AttentionOp>(op)) {
        bring(qkv_, {q, kv, kv});
        if (far_ && site() != host_site) {
          bring_to(host_site, qkv_, {q, kv, kv});
          out_.push_back({static_cast<uint32_t>(op_), host_site, site(), state_values(g_)});
        }
        made(attended_);
      } else if (const Split split = p_.split(op_); split.row != 0) {
        bring(residual_, {g_.hidden_size});
        bring_to(split.site, residual_, {g_.hidden_size});
        out_.push_back({static_cast<uint32_t>(op_), split.site, site(), divided_rows(g_, op_) - split.row});
        made(residual_);
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
  void bring(Where& value, std::initializer_list<uint32_t> widths) { bring_to(site(), value, widths); }
  void bring_to(uint8_t to, Where& value, std::initializer_list<uint32_t> widths) {
    if ((value.present >> to & 1) != 0) return;
    for (const uint32_t width : widths) out_.push_back({static_cast<uint32_t>(op_), value.made_at, to, width});
    value.present |= 1u << to;
  }

  const Graph& g_;
  const Placement& p_;
  const bool far_;
  std::vector<HandOver>& out_;
  size_t op_ = 0;
  Where residual_, qkv_, attended_;
};

}  // namespace

bool Placement::computes(uint8_t site) const {
  const auto has = [site](const Split& split) { return split.row != 0 && split.site == site; };
  return std::count(op_site.begin(), op_site.end(), site) > 0 || std::any_of(splits.begin(), splits.end(), has);
}

bool Placement::is_all_at(uint8_t site) const {
  const auto whole = [](const Split& split) { return split.row == 0; };
  return std::count(op_site.begin(), op_site.end(), site) == std::ssize(op_site) &&
         std::all_of(splits.begin(), splits.end(), whole);
}

Rows rows_at(const Graph& graph, const Placement& placement, size_t op, TensorId matrix, uint8_t site) {
  const uint32_t all = graph.tensor(matrix).rows;
  const bool home = placement.op_site[op] == site;
  const Split split = placement.split(op);
  if (split.row == 0 || !divisible(graph.ops[op], matrix)) return {0, home ? all : 0};
  if (home) return {0, split.row};
  return split.site == site ? Rows{split.row, all} : Rows();
}

uint32_t divided_rows(const Graph& graph, size_t op) { return graph.tensor(std::get<FfnOp>(graph.ops[op]).gate).rows; }

std::vector<uint32_t> split_rows(const Graph& graph, const WeightMap& weights, size_t op) {
  std::vector<uint32_t> rows;
  const auto* ffn = std::get_if<FfnOp>(&graph.ops[op]);
  if (ffn == nullptr) return rows;
  const auto up = weights.of(ffn->up);
  for (const Tile& tile : weights.of(ffn->gate))
    if (tile.row_begin != 0 &&
        std::any_of(up.begin(), up.end(), [&](const Tile& other) { return other.row_begin == tile.row_begin; }))
      rows.push_back(tile.row_begin);
  return rows;
}

std::vector<HandOver> hand_overs(const Graph& graph, const Placement& placement, bool far) {
  std::vector<HandOver> out;
  Values(graph, placement, far, out).run();
  return out;
}

double near_share(uint64_t near_tokens, uint32_t depth, uint32_t n_tokens) {
  const double near = static_cast<double>(near_tokens), end = 1.0 * depth + n_tokens;
  if (end <= near) return 1;
  const double begin = std::max(near, 1.0 * depth), behind = end - begin;  // tokens that see what is far
  const double far = behind * (begin - near + (behind + 1) / 2), all = n_tokens * (depth + (n_tokens + 1) / 2.0);
  return 1 - far / all;
}

std::string Numerics::hash() const {
  std::string text =
      fmt::format("compute={} kv={} page={}", static_cast<int>(compute), static_cast<int>(kv_type), page_tokens);
  for (const std::vector<uint8_t>* list : {&kv_site, &decode.op_site, &prompt.op_site}) {
    text += " |";
    for (const uint8_t site : *list) text += " " + sites[site];
  }
  if (has_far_pages()) text += fmt::format(" | near {}", near_pages);
  if (short_prompt != most_short_prompt) text += fmt::format(" | short {}", short_prompt);
  for (const Placement* placement : {&decode, &prompt})
    for (size_t op = 0; op < placement->splits.size(); ++op)
      if (const Split split = placement->splits[op]; split.row != 0)
        text +=
            fmt::format(" | {}{} from {} {}", placement == &prompt ? "prompt " : "", op, split.row, sites[split.site]);
  for (const std::string& library : libraries) text += " | " + library;
  uint64_t h = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : text) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return fmt::format("{:016x}", h);
}

bool Plan::computes(uint8_t site) const {
  const bool attends = site == host_site && numerics.has_far_pages();
  return attends || numerics.decode.computes(site) || numerics.prompt.computes(site);
}

WorkspaceShape Plan::workspace_of(bool large) const {
  WorkspaceShape shape = workspace;
  if (!large && movement.small_step != 0) shape.tokens = movement.small_step;
  return shape;
}

namespace {

uint64_t laid_out(const Graph& graph, const Plan& plan, uint8_t site, bool large) {
  Workspace unused;
  const uint32_t pages = plan.movement.pages_per_sequence;
  return lay_out(graph, plan.workspace_of(large), site != host_site, pages, nullptr, unused);
}

}  // namespace

uint64_t workspace_bytes(const Graph& graph, const Plan& plan, uint8_t site) {
  return plan.computes(site) ? laid_out(graph, plan, site, true) : 0;
}

uint64_t lent_bytes(const Graph& graph, const Plan& plan, uint8_t site) {
  if (site == host_site || !plan.computes(site)) return 0;
  return laid_out(graph, plan, site, true) - laid_out(graph, plan, site, false);
}

// With room for rows of the embedding table, also where it is in memory: under another budget it may not be (replan).
uint64_t table_bytes(const Graph& graph, const Plan& plan) {
  StepTables unused;
  return lay_out(graph, plan.workspace, plan.movement.pages_per_sequence, true, nullptr, unused);
}

void lay_out_tables(const Graph& graph, const Plan& plan, std::byte* base, StepTables& out) {
  lay_out(graph, plan.workspace, plan.movement.pages_per_sequence, true, base, out);
}

uint32_t block_count(const Graph& graph, const Plan& plan) {
  constexpr uint64_t spare = 64;  // pages that are being copied or dropped
  const uint64_t pages = 2ull * graph.n_layers * plan.movement.pages_per_sequence * plan.workspace.sequences;
  return static_cast<uint32_t>(plan.movement.weights.blocks.size() + pages + spare);
}

std::vector<uint32_t> block_uses(const Graph& graph, const Plan& plan, bool prompt, uint8_t site) {
  std::vector<uint32_t> uses(plan.movement.weights.blocks.size(), 0);
  for_each_tile(graph, plan, prompt, site, [&](const Tile& tile, uint32_t) { ++uses[tile.block]; });
  return uses;
}

std::vector<uint32_t> streamed_blocks(const Graph& graph, const Plan& plan, bool prompt, uint8_t site, bool large) {
  std::vector<uint32_t> order;
  const Holding& holding = plan.movement.sites[site];
  std::vector<bool> seen(holding.resident.size());
  for (size_t i = 0; i < seen.size(); ++i) seen[i] = holding.stays(i, large);
  for_each_tile(graph, plan, prompt, site, [&](const Tile& tile, uint32_t) {
    if (!seen[tile.block]) order.push_back(tile.block);
    seen[tile.block] = true;
  });
  return order;
}

Traffic traffic(const Graph& graph, const Plan& plan, bool prompt, uint32_t depth, bool large) {
  const Movement& m = plan.movement;
  Traffic t;
  t.computed_bytes.assign(m.sites.size(), 0);
  t.link_bytes.assign(m.sites.size(), 0);
  std::pair<uint32_t, uint8_t> last = {UINT32_MAX, 0};
  const bool far = plan.numerics.near_share(depth, 1) < 1;
  for (const HandOver& h : hand_overs(graph, plan.numerics.placement(prompt), far))
    t.hand_overs += std::exchange(last, {h.op, h.to}) != std::pair(h.op, h.to);
  std::vector<bool> in_memory = plan.host().resident;  // or read before in this pass
  for (uint8_t site = 0; site < m.sites.size(); ++site) {
    for_each_tile(graph, plan, prompt, site, [&](const Tile& tile, uint32_t rows) {
      t.computed_bytes[site] += rows * graph.tensor(tile.tensor).row_size();
    });
    for (const uint32_t block : streamed_blocks(graph, plan, prompt, site, large)) {
      if (site != host_site) t.link_bytes[site] += m.weights.blocks[block].bytes;
      if (!in_memory[block]) t.disk_bytes += m.weights.blocks[block].bytes;
    }
  }
  return t;
}

}  // namespace sluice::plan
