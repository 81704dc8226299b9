#include "offload/plan/planner_host.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "offload/plan/cost_model.h"
#include "offload/plan/planner_sites.h"

namespace sluice::plan {
namespace {

// From generous to sparing: how much memory goes into run-ahead and step size before any weight stays.
struct Setting {
  uint32_t step_tokens;
  uint64_t tile_bytes;
  uint64_t ahead_bytes;
};
constexpr std::array<Setting, 7> settings = {{
    {512, 8 * MiB, 64 * MiB},
    {512, 8 * MiB, 32 * MiB},
    {256, 4 * MiB, 16 * MiB},
    {128, 2 * MiB, 8 * MiB},
    {64, MiB, 4 * MiB},
    {32, 512 * KiB, 2 * MiB},
    {16, 256 * KiB, MiB},
}};

// One attempt at a plan with one Setting. Memory is given in the order of need: what is fixed, the step's
// workspace, vectors, the least KV, staging; then all KV, then weights, then the embedding table.
class Attempt {
 public:
  Attempt(const Graph& graph, const Machine& machine, const PlanRequest& request, const Setting& setting)
      : g_(graph), machine_(machine), r_(request) {
    const uint32_t step = r_.step_tokens != 0 ? r_.step_tokens : std::min(setting.step_tokens, r_.context);
    plan_ = plan_shell(graph, machine, request, step);
    m_ = std::move(plan_.movement);
    kv_ = host_kv(r_, g_.n_layers, 0, all_pages, step);
    m_.weights = cut(g_, setting.tile_bytes);
    begin(setting.ahead_bytes);
  }

  // With what `now`, which outlives it, cannot change.
  Attempt(const Graph& graph, const Machine& machine, const PlanRequest& request, const Plan& now, uint64_t ahead_bytes)
      : g_(graph), machine_(machine), r_(request), plan_(without_sites(now)), m_(std::move(plan_.movement)) {
    kv_ = held_kv(now.host());
    begin(ahead_bytes);
  }

  // The least this setting can do with; make() succeeds with any budget from here on.
  uint64_t least() const { return fixed() + kv_.least * m_.page_slot_bytes + least_staging(largest()); }

  // What keeps everything in memory.
  uint64_t whole() const { return fixed() + kv_.whole * m_.page_slot_bytes + all_weights(); }

  Plan make() {
    uint64_t left = r_.ram_budget - fixed();
    keep(BlockRole::vector);
    const uint64_t least_kv = kv_.least * m_.page_slot_bytes;
    const bool all_weights_fit = left >= kv_.whole * m_.page_slot_bytes + streamable_bytes();
    const uint64_t most_staging = align_down(left - least_kv, io_unit);  // slots behind it begin at whole units
    const uint64_t staging = all_weights_fit ? 0 : std::min(staging_for(host_.ahead_bytes, largest()), most_staging);
    left -= give_kv(kv_, r_, left - staging, m_, host_);
    if (all_weights_fit) {
      keep(BlockRole::matrix);
      keep(BlockRole::expert);
      left -= streamable_bytes();
    } else {
      host_.staging_bytes = staging;
      left = keep_spread(left - staging);
    }
    keep_table(left);
    finish();
    return std::move(plan_);
  }

 private:
  void begin(uint64_t ahead_bytes) {
    host_.budget = r_.ram_budget;
    host_.resident.assign(m_.weights.blocks.size(), false);
    host_.ahead_bytes = ahead_bytes;
  }

  // --- fixed costs
  uint64_t fixed() const { return total(r_.fixed) + workspace() + role_bytes(BlockRole::vector); }
  // While nothing is placed yet rows of the embedding table are read from disk.
  uint64_t workspace() const {
    Workspace activations;
    StepTables tables;
    return lay_out(g_, plan_.workspace, false, 0, nullptr, activations) +
           lay_out(g_, plan_.workspace, m_.pages_per_sequence, true, nullptr, tables);
  }
  uint64_t role_bytes(BlockRole role) const {
    uint64_t sum = 0;
    for (const WeightBlock& b : m_.weights.blocks)
      if (b.role == role) sum += b.slot_bytes;
    return sum;
  }

  // --- weights
  uint64_t streamable_bytes() const { return role_bytes(BlockRole::matrix) + role_bytes(BlockRole::expert); }
  uint64_t all_weights() const { return streamable_bytes() + role_bytes(BlockRole::table); }
  uint64_t largest() const {
    return std::max(m_.weights.largest_slot(BlockRole::matrix), m_.weights.largest_slot(BlockRole::expert));
  }
  void keep(BlockRole role) {
    for (size_t i = 0; i < m_.weights.blocks.size(); ++i)
      if (m_.weights.blocks[i].role == role) keep_block(i);
  }
  void keep_block(size_t i) {
    host_.resident[i] = true;
    host_.resident_bytes += m_.weights.blocks[i].slot_bytes;
  }

  // Keeps as many streamable blocks as fit, spread evenly over the pass so that reading never pauses for
  // long: whole fractions are carried from block to block.
  uint64_t keep_spread(uint64_t left) {
    const double share = std::min(1.0, static_cast<double>(left) / static_cast<double>(streamable_bytes()));
    double carried = 0;
    for (size_t i = 0; i < m_.weights.blocks.size(); ++i) {
      const WeightBlock& b = m_.weights.blocks[i];
      if (b.role != BlockRole::matrix && b.role != BlockRole::expert) continue;
      const auto bytes = static_cast<double>(b.slot_bytes);
      carried += share * bytes;
      if (carried < bytes * 0.5 || b.slot_bytes > left) continue;
      carried -= bytes;
      left -= b.slot_bytes;
      keep_block(i);
    }
    return left;
  }
  void keep_table(uint64_t left) {
    const TensorId table = std::get<EmbedOp>(g_.ops.front()).table;
    if (role_bytes(BlockRole::table) > 0 && role_bytes(BlockRole::table) <= left) keep(BlockRole::table);
    m_.table_resident = true;
    for (const Tile& tile : m_.weights.of(table)) m_.table_resident &= host_.resident[tile.block];
  }

  void finish() {
    // Reading ahead leaves room for what is asked for out of turn, such as an expert.
    if (host_.staging_bytes > 0) host_.ahead_bytes = std::min(host_.ahead_bytes, host_.staging_bytes - 2 * largest());
    m_.sites = {host_};
    plan_.movement = std::move(m_);
    name_memory(g_, r_.fixed, host_site, plan_);
    plan_.prediction = predict(g_, machine_, plan_, r_.depth);
  }

  const Graph& g_;
  const Machine& machine_;
  const PlanRequest& r_;
  Plan plan_;
  Movement m_;
  HostKv kv_;
  Holding host_;
};

Result<Plan> with_spill(Plan plan, const PlanRequest& r) {
  SLUICE_RETURN_IF_ERROR(check_spill(plan, r));
  return plan;
}

// A generous setting is taken where all fits, or where it leaves most of the budget to weights.
bool is_roomy(const Attempt& attempt, uint64_t ahead_bytes, uint64_t budget) {
  return attempt.whole() <= budget || attempt.least() + 4 * ahead_bytes <= budget;
}

// The most sparing setting, or what is too small for that one.
Result<Plan> make_last(Attempt last, const Graph& graph, const PlanRequest& request, uint64_t& least) {
  least = std::min(last.least(), last.whole());
  if (last.least() <= request.ram_budget || last.whole() <= request.ram_budget) return with_spill(last.make(), request);
  return error(Code::over_budget,
               "{} does not fit --ram {}: with a context of {} tokens the least that works is --ram {}M", graph.name,
               format_size(request.ram_budget), request.context, div_up(least, MiB));
}

}  // namespace

Result<Plan> plan_for_host(const Graph& graph, const Machine& machine, const PlanRequest& request, uint64_t& least) {
  for (const Setting& setting : settings) {
    Attempt attempt(graph, machine, request, setting);
    if (is_roomy(attempt, setting.ahead_bytes, request.ram_budget)) return with_spill(attempt.make(), request);
  }
  return make_last(Attempt(graph, machine, request, settings.back()), graph, request, least);
}

Result<Plan> replan_for_host(const Graph& graph, const Machine& machine, const PlanRequest& request, const Plan& now,
                             uint64_t& least) {
  for (const Setting& setting : settings) {
    Attempt attempt(graph, machine, request, now, setting.ahead_bytes);
    if (is_roomy(attempt, setting.ahead_bytes, request.ram_budget)) return with_spill(attempt.make(), request);
  }
  return make_last(Attempt(graph, machine, request, now, settings.back().ahead_bytes), graph, request, least);
}

}  // namespace sluice::plan
