#include "tests/support/placement.h"

#include <algorithm>

#include "offload/plan/planner_sites.h"

namespace sluice::testing {
namespace {

void split_ffns(const Graph& g, plan::Plan& p, const PlacementOptions& o) {
  for (const bool prompt : {false, true}) {
    plan::Placement& placement = prompt ? p.numerics.prompt : p.numerics.decode;
    placement.splits.resize(g.ops.size());
    for (size_t i = 0; i < g.ops.size(); ++i) {
      const uint32_t row = std::holds_alternative<FfnOp>(g.ops[i]) ? o.split(i, prompt) : 0;
      if (row == 0) continue;
      const auto other = static_cast<uint8_t>(1 - placement.op_site[i]);
      placement.splits[i] = {plan::nearest(plan::split_rows(g, p.movement.weights, i), row), other};
    }
  }
}

void place_ops(const Graph& g, plan::Numerics& n, const PlacementOptions& o) {
  n.sites.push_back(o.device);
  for (size_t i = 0; i < g.ops.size(); ++i) {
    n.decode.op_site[i] = o.placed(i, false);
    n.prompt.op_site[i] = o.placed(i, true);
    const auto* attention = std::get_if<AttentionOp>(&g.ops[i]);
    if (attention == nullptr) continue;
    n.kv_site[attention->layer] = n.decode.op_site[i];
    n.prompt.op_site[i] = n.decode.op_site[i];
  }
}

// Vectors, and every so many of the matrices that are used there.
void keep(const Graph& g, plan::Plan& p, const PlacementOptions& o) {
  const auto& blocks = p.movement.weights.blocks;
  const auto decode = plan::block_uses(g, p, false, 1), prompt = plan::block_uses(g, p, true, 1);
  plan::Holding& site = p.movement.sites[1];
  double carried = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    bool stays = blocks[i].role == plan::BlockRole::vector;
    if (blocks[i].role == plan::BlockRole::matrix && decode[i] + prompt[i] > 0) {
      carried += o.resident;
      stays = carried >= 0.999;
      if (stays) carried -= 1;
    }
    site.resident[i] = stays;
    if (stays) site.resident_bytes += blocks[i].slot_bytes;
  }
}

void lend(const Graph& g, plan::Plan& p, uint32_t small_step) {
  p.movement.small_step = small_step;
  plan::Holding& site = p.movement.sites[1];
  uint64_t room = plan::lent_bytes(g, p, 1);
  site.lent.assign(site.resident.size(), false);
  bool other = true;
  for (size_t i = 0; i < site.resident.size(); ++i) {
    const plan::WeightBlock& b = p.movement.weights.blocks[i];
    if (!site.resident[i] || b.role != plan::BlockRole::matrix || b.slot_bytes > room) continue;
    if (!(other = !other)) continue;
    room -= b.slot_bytes;
    site.resident_bytes -= b.slot_bytes;
    site.resident[i] = false;
    site.lent[i] = true;
  }
}

}  // namespace

void place(const Graph& g, plan::Plan& p, const PlacementOptions& o) {
  place_ops(g, p.numerics, o);
  if (o.split) split_ffns(g, p, o);
  plan::Movement& m = p.movement;
  plan::Holding there;
  there.resident.assign(m.weights.blocks.size(), false);
  m.sites.push_back(there);
  keep(g, p, o);
  plan::Holding &host = m.sites[0], &site = m.sites[1];
  const uint64_t largest = m.weights.largest_slot(plan::BlockRole::matrix);
  site.staging_bytes = 3 * largest;
  site.ahead_bytes = largest;
  site.scratch_bytes = o.scratch_bytes;
  const auto layers = std::count(p.numerics.kv_site.begin(), p.numerics.kv_site.end(), 1);
  if (layers > 0 && o.near_pages < m.pages_per_sequence) p.numerics.near_pages = o.near_pages;
  p.workspace.far_pages = p.numerics.has_far_pages();
  if (o.small_step != 0) lend(g, p, o.small_step);
  const uint32_t near = std::min(p.numerics.near_pages, m.pages_per_sequence);
  const uint32_t staged = p.numerics.has_far_pages() ? 4 * plan::staged_pages : 0;
  site.kv_pages = site.kv_kept_pages = static_cast<uint32_t>(2 * layers * p.workspace.sequences * near + staged);
  host.staging_bytes += 4 * largest;  // what passes from disk to the accelerator
}

}  // namespace sluice::testing
