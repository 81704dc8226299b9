// The search for the places of ops on a machine with an accelerator.
//
// A placement is weighed in microseconds without drawing up a plan: kernels are tabulated by op and site, and memory
// is counted in sums. The search begins from families that people know (all layers on the accelerator, the last k or
// every other on the host, attention here and FFN there, KV where there is room), and improves the best of them layer
// by layer and then op by op.
//
// What is found so has whole ops. From there a second search divides FFNs, so that CPU and link, or CPU and
// accelerator, work at once within a layer: of some layers evenly, then layer by layer, beginning with the share of the
// bytes that the link brings while the CPU reads the others.
#pragma once

#include <array>
#include <optional>

#include "offload/plan/cost_model.h"
#include "offload/plan/planner_sites.h"

namespace sluice::plan {

// Moves that gain less are not made: sums do not tell that well, and evenness, which the families have, forgives what
// they do not foresee. Nor are splits.
inline constexpr double least_gain = 2e-3;

struct Found {
  Places places;
  uint64_t ahead_bytes = 0;     // of the accelerator's stream
  bool prompt_streams = false;  // prompts are computed by the accelerator, but for attention that the host has KV for
  double seconds = 0;           // of the typical request, as far as sums tell
  bool parted() const { return places.near_pages != all_pages; }
};

// Whether the KV of each layer lies at one site, or pages of those that the accelerator attends to also with the host.
enum class Kv : uint8_t { whole, parted };

class Search {
 public:
  // All must outlive it. For one step size and one cut of the weights.
  Search(const Graph& graph, const Machine& machine, const PlanRequest& request, const WeightMap& weights,
         uint32_t step_tokens);

  // From scratch, or from what was found for another step size. Empty where no placement fits the budgets, or KV is too
  // little to be parted.
  std::optional<Found> run(Kv lying) const;
  std::optional<Found> run_from(const Found& other) const;
  // With FFNs that are split, where that takes less time than `whole` by more than the least gain.
  std::optional<Found> split(const Found& whole) const;

 private:
  // Where the ops of a layer are, and where its FFN may be split.
  struct Layer {
    uint32_t in = 0, attention = 0, out = 0, ffn = 0;
    std::vector<uint32_t> rows;
  };
  // A member of a family: how many layers have each sub-layer on the host, and how they lie.
  struct Counts {
    uint32_t kv = 0, attention = 0, ffn = 0;
    bool head_at_host = false, at_the_end = false;
  };

  std::optional<Found> improve(Found start, int rounds) const;
  std::optional<Found> best_of(const std::vector<Found>& starts, int rounds) const;
  bool small() const { return layers_.size() <= 12; }
  void tabulate(const Machine& machine);
  void find_layers();
  Places places_of(const Counts& counts) const;
  void settle(Found& found) const;  // embed, prompt and seconds of found.places.decode
  void place_prompt(Places& places, bool streamed) const;
  double weigh(const Places& places, uint64_t ahead_bytes) const;
  uint32_t prompt_depth() const { return (typical_.prompt - prompt_step_) / 2; }  // of its middle step
  double free_vram(bool far) const;
  std::vector<uint32_t> near_choices(const Places& places) const;
  bool kv_is_pinned() const;
  bool try_places(Found& best, Places places) const;
  bool try_move(Found& best, std::initializer_list<uint32_t> ops, uint8_t site) const;
  bool try_splits(Found& best, const Layer& layer) const;
  // By site and kind of move: with how many layers in a row it has not helped.
  using Patience = std::array<std::array<uint32_t, 8>, 2>;
  void improve_layer(Found& best, const Layer& layer, uint8_t site, Patience& patience) const;
  bool may_split(const Layer& layer) const;
  double link_share(uint32_t ffn) const;
  Found divided(const Found& whole, uint32_t count, double share) const;
  double bytes_at_accelerator(const Placement& placement, size_t op) const;
  std::vector<Found> families(Kv lying) const;
  std::vector<uint64_t> distances() const;

  const Graph& g_;
  const PlanRequest& r_;
  const Machine& machine_;
  Plan shell_;
  Request typical_;
  uint32_t prompt_step_ = 0;  // tokens of a step of the typical prompt
  LinkLane lane_;
  std::vector<Layer> layers_;
  std::vector<double> bytes_;                  // by op: slots of its weights
  std::vector<double> divisible_;              // of them those of rows that a split divides
  std::vector<OpCost> decode_[2], prompt_[2];  // by site, by op
  // Without far pages, and with.
  uint64_t workspace_[2][2] = {}, lent_[2] = {}, tables_[2] = {};
  uint64_t largest_ = 0, vectors_ = 0;
  double weights_ = 0;
  mutable std::vector<OpCost> weighed_;  // of the pass that is weighed: a search is one thread's
};

}  // namespace sluice::plan
