#include "offload/plan/planner.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "core/error.h"
#include "offload/plan/cost_model.h"
#include "offload/plan/planner_host.h"
#include "offload/plan/planner_search.h"

namespace sluice::plan {
namespace {

Status check(const Graph& g, const PlanRequest& r) {
  if (r.context == 0 || r.sequences == 0 || r.logit_rows == 0)
    return error(Code::invalid_argument, "a plan needs a context, sequences and logit rows of at least 1");
  if (!is_power_of_two(r.page_tokens))
    return error(Code::invalid_argument, "pages of {} tokens: must be a power of two", r.page_tokens);
  if (r.context > (1u << 24) || r.sequences > 1024)
    return error(Code::invalid_argument, "a context of {} tokens in {} sequences is beyond what is supported",
                 r.context, r.sequences);
  if (!r.pinned.empty() && r.pinned.size() != g.ops.size())
    return error(Code::invalid_argument, "{}: places for {} ops, it has {}", g.name, r.pinned.size(), g.ops.size());
  return validate(g);
}

// Steps and tiles that are tried with an accelerator, from generous to sparing.
constexpr std::array<uint32_t, 9> step_sizes = {4096, 2048, 1024, 512, 256, 128, 64, 32, 16};
constexpr std::array<uint64_t, 9> tile_sizes = {64 * MiB, 32 * MiB, 16 * MiB,  8 * MiB,  4 * MiB,
                                                2 * MiB,  MiB,      512 * KiB, 256 * KiB};

// Plans for the host and one accelerator.
class Hybrid {
 public:
  Hybrid(const Graph& graph, const Machine& machine, const PlanRequest& request)
      : g_(graph), machine_(machine), r_(request) {
    for (const uint32_t step : step_sizes)
      if (step <= r_.context || step == step_sizes.back()) steps_.push_back(std::min(step, r_.context));
    if (r_.step_tokens != 0) steps_ = {r_.step_tokens};
  }

  // over_budget with the `shortage` of the most sparing setting. An accelerator that cannot even stream is of no use.
  Result<Plan> run(Shortage& shortage) {
    if (tight()) {
      auto least = sparing(shortage);
      if (!least.ok() && shortage.vram) return least;
    }
    const WeightMap weights = cut(g_, searched_tile());
    for (const uint32_t step : steps_) look_at(weights, step);
    divide(weights);
    for (const uint64_t tile : tile_sizes)
      if (tile >= searched_tile() / 4 || !best_) try_tile(tile);
    if (split_ && (!best_ || split_seconds_ < best_seconds_ * (1 - least_gain))) best_ = std::move(split_);
    if (!best_) {
      SLUICE_ASSIGN_OR_RETURN(best_, sparing(shortage));
    }
    best_->numerics.short_prompt = short_prompt(g_, machine_, *best_);
    best_->prediction = predict(g_, machine_, *best_, r_.depth);
    return std::move(*best_);
  }

 private:
  // Whether the least that works has to be looked at: cutting a large model so fine takes long.
  bool tight() const {
    const AcceleratorRequest& accelerator = r_.accelerators.front();
    const WorkspaceShape shape{steps_.back(), r_.logit_rows, r_.sequences, r_.taps};
    Workspace unused;
    const uint64_t fixed = total(accelerator.fixed) + accelerator.scratch_bytes;
    const auto pages = static_cast<uint32_t>(div_up(r_.context, r_.page_tokens));
    return accelerator.budget < fixed + lay_out(g_, shape, true, pages, nullptr, unused) + 64 * MiB;
  }

  // A cut that leaves most of both memories to weights.
  uint64_t searched_tile() const {
    const uint64_t most = std::min(r_.accelerators.front().budget / 64, r_.ram_budget / 64);
    for (const uint64_t tile : tile_sizes)
      if (tile <= 8 * MiB && tile <= most) return tile;
    return tile_sizes.back();
  }

  // The whole search for the first step size that fits; the others start from what it found.
  void look_at(const WeightMap& weights, uint32_t step) {
    const Search search(g_, machine_, r_, weights, step);
    for (const Kv kv : {Kv::whole, Kv::parted}) {
      std::vector<OfStep>& found = found_[static_cast<size_t>(kv)];
      const auto best = found.empty() ? search.run(kv) : search.run_from(found.front().whole);
      if (best) found.push_back({step, *best, {}});
      std::stable_sort(found.begin(), found.end(),
                       [](const auto& a, const auto& b) { return a.whole.seconds < b.whole.seconds; });
    }
  }

  // The best few, and what they gain by FFNs that are split.
  void divide(const WeightMap& weights) {
    constexpr size_t tried = 3;
    for (std::vector<OfStep>& found : found_) {
      found.resize(std::min(tried, found.size()));
      for (OfStep& of_step : found)
        of_step.split = Search(g_, machine_, r_, weights, of_step.step).split(of_step.whole);
    }
  }

  // Nothing new where no matrix is as large as the tile.
  void try_tile(uint64_t tile) {
    if ((found_[0].empty() && found_[1].empty()) ||
        (tile != tile_sizes.back() && passing_bytes(tile) > r_.ram_budget / 4))
      return;
    const WeightMap weights = cut(g_, tile);
    if (std::exchange(blocks_, weights.blocks.size()) == weights.blocks.size()) return;
    for (const std::vector<OfStep>& found : found_)
      for (const OfStep& of_step : found) {
        try_places(weights, of_step.step, of_step.whole, best_, best_seconds_);
        if (of_step.split) try_places(weights, of_step.step, *of_step.split, split_, split_seconds_);
      }
  }
  void try_places(const WeightMap& weights, uint32_t step, const Found& found, std::optional<Plan>& best,
                  double& best_seconds) const {
    const Reserve reserve{step, found.ahead_bytes, host_ahead(r_.ram_budget)};
    auto plan = arrange(g_, machine_, r_, weights, found.places, reserve);
    if (!plan.ok()) return;
    const double seconds = request_seconds(g_, machine_, *plan, r_.depth, r_.prompt);
    if (best && best_seconds <= seconds) return;
    best = std::move(*plan);
    best_seconds = seconds;
  }

  // The least there is: everything streams through the accelerator, and KV lies there, or else with the host.
  Result<Plan> sparing(Shortage& shortage) const {
    const WeightMap weights = cut(g_, tile_sizes.back());
    const Reserve reserve{steps_.back(), 0, 0};
    Places places;
    places.decode.op_site.assign(g_.ops.size(), accelerator_site);
    pin(r_, places);
    places.decode.op_site.front() = places.decode.op_site[1];
    places.prompt = places.decode;
    auto all = arrange(g_, machine_, r_, weights, places, reserve, &shortage);
    if (all.ok() || !shortage.vram) return all;
    for (size_t i = 0; i < g_.ops.size(); ++i)
      if (std::holds_alternative<AttentionOp>(g_.ops[i])) places.decode.op_site[i] = host_site;
    pin(r_, places);
    places.prompt = places.decode;
    return arrange(g_, machine_, r_, weights, places, reserve, &shortage);
  }

  // What was found for a step size: with whole ops, and with some that are split where that is faster.
  struct OfStep {
    uint32_t step = 0;
    Found whole;
    std::optional<Found> split;
  };

  const Graph& g_;
  const Machine& machine_;
  const PlanRequest& r_;
  std::vector<uint32_t> steps_;
  std::array<std::vector<OfStep>, 2> found_;  // by Kv; the best first
  size_t blocks_ = 0;                         // of the cut that was tried last
  std::optional<Plan> best_, split_;          // of whole ops, of split ones
  double best_seconds_ = 0, split_seconds_ = 0;
};

bool routes(const Graph& graph) {
  return std::any_of(graph.ops.begin(), graph.ops.end(),
                     [](const Op& op) { return std::holds_alternative<ExpertsOp>(op); });
}

Status check_accelerator(const Machine& machine, const AcceleratorRequest& accelerator) {
  if (machine.device(accelerator.device) == nullptr)
    return error(Code::invalid_argument, "the machine has no device '{}'", accelerator.device);
  if (link_lane(machine, accelerator.device).bytes_s <= 0)
    return error(Code::invalid_argument, "the machine has no link from 'host' to '{}'", accelerator.device);
  return {};
}

}  // namespace

Result<Plan> make_plan(const Graph& graph, const Machine& machine, const PlanRequest& request) {
  SLUICE_RETURN_IF_ERROR(check(graph, request));
  PlanRequest alone = request;
  alone.accelerators.clear();
  uint64_t least_alone = UINT64_MAX;
  auto cpu = plan_for_host(graph, machine, alone, least_alone);
  const bool wanted = std::count(request.pinned.begin(), request.pinned.end(), accelerator_site) > 0;
  if (request.accelerators.empty() || routes(graph)) {
    if (!wanted) return cpu;
    return error(Code::unsupported, "{}: ops were to be on an accelerator, and {}", graph.name,
                 routes(graph) ? "a model that routes is computed by the CPU" : "there is none");
  }
  SLUICE_RETURN_IF_ERROR(check_accelerator(machine, request.accelerators.front()));
  Shortage shortage;
  auto hybrid = Hybrid(graph, machine, request).run(shortage);
  if (wanted) return hybrid;
  if (hybrid.ok() && cpu.ok()) {
    const auto seconds = [&](const Plan& p) {
      return request_seconds(graph, machine, p, request.depth, request.prompt);
    };
    return seconds(*hybrid) < seconds(*cpu) ? std::move(hybrid) : std::move(cpu);
  }
  if (hybrid.ok()) return hybrid;
  if (cpu.ok()) return shortage.vram && request.accelerators.front().wanted ? std::move(hybrid) : std::move(cpu);
  return shortage.vram || shortage.least > least_alone ? std::move(cpu) : std::move(hybrid);
}

}  // namespace sluice::plan
