#include "offload/plan/planner_sites.h"

#include <algorithm>

#include "core/error.h"

namespace sluice::plan {
namespace {

class Arrangement {
 public:
  Arrangement(const Graph& graph, const Machine& machine, const PlanRequest& request, const WeightMap& weights,
              const Places& places, const Reserve& reserve)
      : g_(graph), r_(request), reserve_(reserve), plan_(plan_shell(graph, machine, request, reserve.step_tokens)) {
    plan_.numerics.decode = at_tiles(places.decode, weights);
    plan_.numerics.prompt = at_tiles(places.prompt, weights);
    plan_.numerics.kv_site = kv_sites(graph, places.decode);
    if (kv_layers(accelerator_site) > 0 && places.near_pages < plan_.movement.pages_per_sequence)
      plan_.numerics.near_pages = places.near_pages;
    plan_.workspace.far_pages = plan_.numerics.has_far_pages();
    plan_.movement.weights = weights;
    begin();
    const uint32_t near = std::min(plan_.numerics.near_pages, plan_.movement.pages_per_sequence);
    device().kv_pages = 2 * kv_layers(accelerator_site) * r_.sequences * near;
    if (plan_.numerics.has_far_pages()) device().kv_pages += 4 * staged_pages;
    device().kv_kept_pages = device().kv_pages;
    device().scratch_bytes = accelerator().scratch_bytes;
    kv_ = host_kv(r_, kv_layers(host_site), kv_layers(accelerator_site), plan_.numerics.near_pages,
                  plan_.workspace.tokens);
  }
  // With what `now`, which outlives it, cannot change.
  Arrangement(const Graph& graph, const PlanRequest& request, const Plan& now, const Reserve& reserve)
      : g_(graph), r_(request), reserve_(reserve), plan_(without_sites(now)) {
    begin();
    const Holding& there = now.movement.sites[accelerator_site];
    device().kv_pages = there.kv_pages;
    device().kv_kept_pages = there.kv_kept_pages;
    device().kv_group_pages = there.kv_group_pages;
    device().scratch_bytes = there.scratch_bytes;
    kv_ = held_kv(now.host());
  }

  const Shortage& shortage() const { return shortage_; }

  Result<Plan> run() {
    SLUICE_RETURN_IF_ERROR(fill_accelerator());
    SLUICE_RETURN_IF_ERROR(fill_host());
    SLUICE_RETURN_IF_ERROR(check_spill(plan_, r_));
    name_memory(g_, r_.fixed, host_site, plan_);
    name_memory(g_, accelerator().fixed, accelerator_site, plan_);
    return std::move(plan_);
  }

 private:
  void begin() {
    largest_ = largest_block(plan_.movement.weights);
    plan_.movement.sites.resize(2);
    host().budget = r_.ram_budget;
    device().budget = accelerator().budget;
    for (Holding& site : plan_.movement.sites) site.resident.assign(blocks().size(), false);
    find_uses();
  }

  // Splits where tiles begin, as near as they are; none where an op has no such row.
  Placement at_tiles(Placement placement, const WeightMap& weights) const {
    for (size_t op = 0; op < placement.splits.size(); ++op) {
      Split& split = placement.splits[op];
      if (split.row != 0) split.row = nearest(split_rows(g_, weights, op), split.row);
      if (split.row == 0) split = {};
    }
    return placement;
  }

  const AcceleratorRequest& accelerator() const { return r_.accelerators.front(); }
  const std::vector<WeightBlock>& blocks() const { return plan_.movement.weights.blocks; }
  Holding& host() { return plan_.movement.sites[host_site]; }
  Holding& device() { return plan_.movement.sites[accelerator_site]; }

  void find_uses() {
    const auto uses = [this](bool prompt, uint8_t site) { return block_uses(g_, plan_, prompt, site); };
    decode_ = uses(false, accelerator_site), prompt_ = uses(true, accelerator_site);
    const auto a = uses(false, host_site), b = uses(true, host_site);
    at_host_.resize(a.size());
    for (size_t i = 0; i < a.size(); ++i) at_host_[i] = a[i] + b[i] > 0;
    pinned_.assign(a.size(), false);
    for (size_t op = 0; op < r_.pinned.size(); ++op)
      if (r_.pinned[op] == accelerator_site)
        for (const TensorId id : matrices(g_.ops[op]))
          for (const Tile& tile : plan_.movement.weights.of(id)) pinned_[tile.block] = true;
  }
  bool at_device(size_t i) const { return decode_[i] + prompt_[i] > 0; }
  uint32_t kv_layers(uint8_t site) const {
    const std::vector<uint8_t>& at = plan_.numerics.kv_site;
    return static_cast<uint32_t>(std::count(at.begin(), at.end(), site));
  }

  // --- what is left of a budget
  Status take(uint64_t& left, uint64_t bytes, uint64_t more, bool vram) {
    const uint64_t budget = vram ? device().budget : host().budget;
    const char* flag = vram ? "--vram" : "--ram";
    if (left >= bytes + more) {
      left -= bytes;
      return {};
    }
    const uint64_t least = budget - left + bytes + more;
    shortage_ = {vram, least};
    return error(Code::over_budget, "{} does not fit {} {}: with a context of {} tokens the least that works is {} {}M",
                 g_.name, flag, format_size(budget), r_.context, flag, div_up(least, MiB));
  }

  // --- weights that stay
  template <class Wanted>
  uint64_t bytes_of(Wanted wanted) const {
    uint64_t sum = 0;
    for (size_t i = 0; i < blocks().size(); ++i)
      if (wanted(i)) sum += blocks()[i].slot_bytes;
    return sum;
  }
  void keep_block(Holding& site, size_t i) {
    site.resident[i] = true;
    site.resident_bytes += blocks()[i].slot_bytes;
  }
  template <class Wanted>
  void keep_all(Holding& site, Wanted wanted) {
    for (size_t i = 0; i < blocks().size(); ++i)
      if (wanted(i) && !site.resident[i]) keep_block(site, i);
  }
  // As many as fit, in even shares over the pass: whole fractions are carried from block to block. What is left then
  // takes what fits in it.
  template <class Wanted>
  void keep_spread(Holding& site, uint64_t& left, Wanted wanted) {
    const uint64_t all = bytes_of([&](size_t i) { return wanted(i) && !site.stays(i, false); });
    if (all == 0) return;
    const double share = std::min(1.0, static_cast<double>(left) / static_cast<double>(all));
    double carried = 0;
    for (size_t i = 0; i < blocks().size(); ++i) {
      if (!wanted(i) || site.stays(i, false)) continue;
      const auto bytes = static_cast<double>(blocks()[i].slot_bytes);
      carried += share * bytes;
      if (carried < bytes * 0.5 || blocks()[i].slot_bytes > left) continue;
      carried -= bytes;
      left -= blocks()[i].slot_bytes;
      keep_block(site, i);
    }
    for (size_t i = 0; i < blocks().size(); ++i) {
      if (!wanted(i) || site.stays(i, false) || blocks()[i].slot_bytes > left) continue;
      left -= blocks()[i].slot_bytes;
      keep_block(site, i);
    }
  }
  auto role(BlockRole role) const {
    return [this, role](size_t i) { return blocks()[i].role == role; };
  }

  // --- the accelerator
  Status fill_accelerator() {
    Holding& d = device();
    const auto at = [this](size_t i) { return at_device(i); };
    const auto decodes = [this](size_t i) { return decode_[i] > 0; };
    uint64_t left = d.budget;
    const uint64_t fixed = total(accelerator().fixed) + d.scratch_bytes + workspace_bytes(g_, plan_, accelerator_site) +
                           bytes_of(role(BlockRole::vector)) + plan_.kv_arena_bytes(accelerator_site);
    const uint64_t weights = bytes_of(at);
    SLUICE_RETURN_IF_ERROR(take(left, fixed, std::min(weights, least_staging(largest_)), true));
    keep_all(d, role(BlockRole::vector));
    if (weights <= left) {
      keep_all(d, at);
      left -= weights;
      const uint64_t table = bytes_of(role(BlockRole::table));
      if (plan_.numerics.decode.op_site.front() == accelerator_site && table <= left)
        keep_all(d, role(BlockRole::table));
      return {};
    }
    const uint64_t lent = lent_bytes(g_, plan_, accelerator_site);
    d.staging_bytes = std::min(staging_for(reserve_.ahead_bytes, largest_), align_down(left, io_unit));
    if (d.staging_bytes < least_staging(largest_)) return take(left, least_staging(largest_), 0, true);
    d.ahead_bytes = std::min(reserve_.ahead_bytes, d.staging_bytes - 2 * largest_);
    left -= d.staging_bytes;
    const auto pinned = [this](size_t i) { return pinned_[i]; };
    SLUICE_RETURN_IF_ERROR(take(left, bytes_of(pinned), 0, true));
    keep_all(d, pinned);
    if (lent > 0) keep_with_lent(left, lent, decodes);
    keep_spread(d, left, decodes);
    keep_spread(d, left, at);
    return {};
  }

  // Both what stays in all steps and what is lent are spread over the pass.
  template <class Wanted>
  void keep_with_lent(uint64_t& left, uint64_t lent, Wanted wanted) {
    Holding& d = device();
    Holding both = d;
    uint64_t all = left + lent;
    keep_spread(both, all, wanted);
    const auto added = [&](size_t i) { return both.resident[i] && !d.resident[i]; };
    if (both.resident_bytes - d.resident_bytes <= left) return;  // no need
    d.lent = lend(both, lent, added);
    keep_spread(d, left, added);
  }

  // Of the blocks that may be, such that what streams in large steps comes at an even rate.
  template <class Wanted>
  std::vector<bool> lend(const Holding& kept, uint64_t lent, Wanted may_be) const {
    const auto streams = [&](size_t i) { return at_device(i) && !kept.resident[i]; };
    const double all = static_cast<double>(bytes_of([this](size_t i) { return at_device(i); }));
    const double share = static_cast<double>(bytes_of(streams) + lent) / all;
    std::vector<bool> given(blocks().size(), false);
    double carried = 0;
    for (size_t i = 0; i < blocks().size(); ++i) {
      const auto bytes = static_cast<double>(blocks()[i].slot_bytes);
      carried += at_device(i) ? share * bytes : 0;
      given[i] = may_be(i) && carried >= bytes * 0.5 && blocks()[i].slot_bytes <= lent;
      if (given[i]) lent -= blocks()[i].slot_bytes;
      if (given[i] || streams(i)) carried -= bytes;
    }
    return given;
  }

  // --- the host
  Status fill_host() {
    Holding& h = host();
    const bool computes = plan_.computes(host_site);
    uint64_t left = h.budget;
    uint64_t fixed = total(r_.fixed) + table_bytes(g_, plan_);
    if (computes) fixed += workspace_bytes(g_, plan_, host_site) + bytes_of(role(BlockRole::vector));
    const auto wanted = [this](size_t i) { return at_host_[i] || (at_device(i) && !device().resident[i]); };
    const uint64_t weights = bytes_of(wanted), passing = passing_bytes(largest_);
    const uint64_t page = plan_.movement.page_slot_bytes, least_kv = kv_.least * page;
    const uint64_t least = least_kv + passing + std::min(weights, least_staging(largest_));
    SLUICE_RETURN_IF_ERROR(take(left, fixed, least, false));
    if (computes) keep_all(h, role(BlockRole::vector));
    const bool all_fit = left >= kv_.whole * page + passing + weights;
    h.staging_bytes = passing;
    if (!all_fit) {
      const uint64_t most = align_down(left - least_kv, io_unit);
      h.staging_bytes = std::min(passing + staging_for(reserve_.host_ahead_bytes, largest_), most);
      h.ahead_bytes = std::min(reserve_.host_ahead_bytes, h.staging_bytes - passing - 2 * largest_);
    }
    left -= h.staging_bytes;
    left -= give_kv(kv_, r_, left, plan_.movement, h);
    // First what every token reads.
    keep_spread(h, left, [&](size_t i) { return at_host_[i] || (wanted(i) && !device().lends(i)); });
    keep_spread(h, left, wanted);
    keep_table(left);
    return {};
  }

  // The embedding table, where the accelerator does not hold it.
  void keep_table(uint64_t left) {
    const auto wanted = [&](size_t i) { return role(BlockRole::table)(i) && !device().resident[i]; };
    if (bytes_of(wanted) <= left) keep_all(host(), wanted);
    plan_.movement.table_resident = true;
    const TensorId table = std::get<EmbedOp>(g_.ops.front()).table;
    for (const Tile& tile : plan_.movement.weights.of(table))
      plan_.movement.table_resident = plan_.movement.table_resident && host().resident[tile.block];
  }

  const Graph& g_;
  const PlanRequest& r_;
  const Reserve& reserve_;
  Plan plan_;
  Shortage shortage_;
  HostKv kv_;
  uint64_t largest_ = 0;
  std::vector<uint32_t> decode_, prompt_;  // by block: uses at the accelerator
  std::vector<bool> at_host_;              // by block: the host computes with it
  std::vector<bool> pinned_;               // by block: it must stay at the accelerator
};

}  // namespace

std::vector<uint8_t> kv_sites(const Graph& graph, const Placement& placement) {
  std::vector<uint8_t> sites(graph.n_layers, host_site);
  for (size_t i = 0; i < graph.ops.size(); ++i)
    if (const auto* attention = std::get_if<AttentionOp>(&graph.ops[i])) sites[attention->layer] = placement.op_site[i];
  return sites;
}

void pin(const PlanRequest& r, Places& places) {
  Placement& decode = places.decode;
  for (size_t i = 0; i < r.pinned.size(); ++i) {
    if (r.pinned[i] == any_site) continue;
    decode.op_site[i] = r.pinned[i];
    if (i < decode.splits.size()) decode.splits[i] = {};
  }
}

uint32_t nearest(const std::vector<uint32_t>& rows, uint32_t row) {
  const auto apart = [row](uint32_t other) { return other < row ? row - other : other - row; };
  const auto at =
      std::min_element(rows.begin(), rows.end(), [&](uint32_t a, uint32_t b) { return apart(a) < apart(b); });
  return at != rows.end() ? *at : 0;
}

uint64_t least_staging(uint64_t largest) { return 3 * largest; }
uint64_t staging_for(uint64_t ahead, uint64_t largest) { return std::max(least_staging(largest), ahead + 2 * largest); }
uint64_t passing_bytes(uint64_t largest) { return 4 * largest; }

uint64_t host_ahead(uint64_t ram) { return align_down(std::min(64 * MiB, ram / 32), io_unit); }

uint64_t largest_block(const WeightMap& weights) {
  uint64_t most = 0;
  for (const WeightBlock& b : weights.blocks)
    if (b.role != BlockRole::table) most = std::max(most, b.slot_bytes);
  return most;
}

uint64_t page_slot_bytes(const Graph& graph, const PlanRequest& r) {
  const KvType type = r.compute == Compute::f32 ? KvType::f32 : KvType::f16;
  return align_up(r.page_tokens * graph.kv_values() * kv_bytes(type), io_unit);
}
uint32_t pages_per_sequence(const PlanRequest& r) { return static_cast<uint32_t>(div_up(r.context, r.page_tokens)); }

// The pages being filled of every layer, those a step fills in one layer twice over (one set being written while the
// next is filled), and two groups of one page of each sequence.
HostKv host_kv(const PlanRequest& r, uint32_t layers, uint32_t other_layers, uint32_t near_pages,
               uint32_t step_tokens) {
  const uint64_t pages = pages_per_sequence(r), far = pages - std::min<uint64_t>(pages, near_pages);
  if (far == 0) other_layers = 0;
  if (layers + other_layers == 0) return {};
  HostKv kv;
  kv.whole = 2ull * r.sequences * (layers * pages + other_layers * far);
  kv.tails = 2ull * r.sequences * (layers + other_layers);
  kv.filling = 4 * (div_up(step_tokens, r.page_tokens) + r.sequences);
  kv.least = std::min<uint64_t>(kv.whole, kv.tails + kv.filling + 4 * r.sequences);
  return kv;
}

HostKv held_kv(const Holding& host) {
  HostKv kv;
  kv.whole = kv.least = host.kv_pages;
  kv.held = &host;
  return kv;
}

uint64_t total(const std::vector<NamedBytes>& items) {
  uint64_t sum = 0;
  for (const NamedBytes& item : items) sum += item.bytes;
  return sum;
}

void name_memory(const Graph& graph, const std::vector<NamedBytes>& fixed, uint8_t site, Plan& plan) {
  Holding& h = plan.movement.sites[site];
  h.memory = fixed;
  const uint64_t tables = site == host_site ? table_bytes(graph, plan) : 0;
  if (h.scratch_bytes > 0) h.memory.push_back({"scratch", h.scratch_bytes});
  h.memory.push_back({"workspace", workspace_bytes(graph, plan, site) + tables});
  h.memory.push_back({"weights", h.resident_bytes});
  h.memory.push_back({"staging", h.staging_bytes});
  h.memory.push_back({"kv", plan.kv_arena_bytes(site)});
}

Status check_spill(const Plan& plan, const PlanRequest& r) {
  if (plan.movement.spill_bytes <= r.spill_limit) return {};
  return error(Code::over_budget,
               "the KV cache of {} tokens does not fit --ram {} and may need {} on disk, of which {} are free: raise "
               "--ram, lower -c, or choose another --spill-dir",
               r.context, format_size(r.ram_budget), format_size(plan.movement.spill_bytes),
               format_size(r.spill_limit));
}

uint64_t give_kv(const HostKv& kv, const PlanRequest& r, uint64_t left, Movement& m, Holding& host) {
  const uint64_t page = m.page_slot_bytes;
  if (kv.held != nullptr) {
    host.kv_pages = kv.held->kv_pages;
    host.kv_kept_pages = kv.held->kv_kept_pages;
    host.kv_group_pages = kv.held->kv_group_pages;
    return host.kv_pages * page;
  }
  uint64_t most = left / page;
  if (kv.whole > most) most = std::max(left / 2 / page, kv.least);
  if (kv.whole <= most) {
    host.kv_pages = host.kv_kept_pages = static_cast<uint32_t>(kv.whole);
  } else {
    const uint64_t moving = kv.tails + kv.filling, groups = (most - moving) / (4 * r.sequences);
    host.kv_group_pages = static_cast<uint32_t>(std::clamp<uint64_t>(groups / 2, 1, 32));
    host.kv_pages = static_cast<uint32_t>(most);
    host.kv_kept_pages = static_cast<uint32_t>(most - moving - 4ull * r.sequences * host.kv_group_pages);
    m.spill_bytes = kv.whole * page;
  }
  return host.kv_pages * page;
}

Plan plan_shell(const Graph& g, const Machine& machine, const PlanRequest& r, uint32_t step_tokens) {
  Plan plan;
  plan.context = r.context;
  plan.workspace = {step_tokens, r.logit_rows, r.sequences, r.taps};
  plan.numerics.compute = r.compute;
  plan.numerics.kv_type = r.compute == Compute::f32 ? KvType::f32 : KvType::f16;
  plan.numerics.page_tokens = r.page_tokens;
  plan.numerics.sites = {machine.devices.empty() ? "cpu" : machine.devices.front().id};
  if (!r.accelerators.empty()) plan.numerics.sites.push_back(r.accelerators.front().device);
  plan.numerics.kv_site.assign(g.n_layers, host_site);
  plan.numerics.decode.op_site.assign(g.ops.size(), host_site);
  plan.numerics.prompt = plan.numerics.decode;
  plan.movement.page_slot_bytes = page_slot_bytes(g, r);
  plan.movement.pages_per_sequence = pages_per_sequence(r);
  if (!r.accelerators.empty()) plan.movement.small_step = small_step(step_tokens);
  return plan;
}

uint32_t small_step(uint32_t step_tokens) {
  const uint32_t small = std::clamp(step_tokens / 16, few_tokens, 128u);
  return small < step_tokens ? small : 0;
}

Plan without_sites(const Plan& plan) {
  Plan shell = plan;
  shell.movement.sites.clear();
  shell.movement.table_resident = false;
  shell.prediction = {};
  return shell;
}

Result<Plan> arrange(const Graph& graph, const Machine& machine, const PlanRequest& request, const WeightMap& weights,
                     const Places& places, const Reserve& reserve, Shortage* shortage) {
  Arrangement arrangement(graph, machine, request, weights, places, reserve);
  auto plan = arrangement.run();
  if (shortage != nullptr) *shortage = arrangement.shortage();
  return plan;
}

Result<Plan> rearrange(const Graph& graph, const PlanRequest& request, const Plan& now, const Reserve& reserve,
                       Shortage* shortage) {
  Arrangement arrangement(graph, request, now, reserve);
  auto plan = arrangement.run();
  if (shortage != nullptr) *shortage = arrangement.shortage();
  return plan;
}

}  // namespace sluice::plan
