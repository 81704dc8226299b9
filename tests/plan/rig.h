// What the tests of plans stand on: a tiny model in a store in memory, tiers, a CPU device and an
// Executor, under a Plan whose Movement a test may force.
#pragma once

#include <doctest/doctest.h>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "core/bytes.h"
#include "cpu/cpu_device.h"
#include "offload/plan/executor.h"
#include "offload/plan/planner.h"
#include "tests/support/memory_store.h"
#include "tests/support/placement.h"
#include "tests/support/sim_device.h"
#include "tests/support/sim_memory.h"
#include "tests/support/tiny_graph.h"

namespace sluice::testing {

using Floats = std::vector<float>;

struct PlanRigOptions {
  // Numerics and shape
  Compute compute = Compute::f32;
  uint32_t page_tokens = 8, context = 96, sequences = 4, step_tokens = 64, logit_rows = 64, taps = 2;
  uint32_t threads = 1;
  cpu::Prompts prompts = cpu::Prompts::int8;  // else everything that is fed is part of a prompt
  // Movement
  uint64_t ram = 0;            // a plan of the planner under this budget; 0: made by hand from what follows
  double resident = 1;         // share of the matrices that stays
  uint64_t tile_bytes = 8192;  // at most, of a tile
  uint32_t kv_groups = 0;      // pages of a group; 0: KV stays in memory
  uint32_t kv_kept = 0;        // full pages that stay, where KV leaves
  MemoryStore::Options store;
  Trace* trace = nullptr;  // of the executor
  Ranges* ranges = nullptr;
  // Sites. With `placed` there is an accelerator; ops for which it says so are computed there.
  std::function<bool(size_t op, bool prompt)> placed;
  std::function<uint32_t(size_t op, bool prompt)> split;  // as in PlacementOptions
  double device_resident = 1;                             // share of its matrices that stays there
  uint32_t near_pages = plan::all_pages, small_step = 0;  // as in PlacementOptions
  std::chrono::nanoseconds copy_latency{0};               // of each copy to it
  // Routed graphs
  const plan::ExpertPolicy* policy = nullptr;  // with one there is an accelerator
  uint32_t accelerator_experts = 3;
};

Machine test_machine();

class PlanRig {
 public:
  explicit PlanRig(const TinyModel& model, const PlanRigOptions& options = {});
  ~PlanRig();

  const TinyModel& model;
  const PlanRigOptions options;
  plan::Plan plan;
  MemoryStore store;
  std::unique_ptr<SimMemory> weights_memory, kv_memory, workspace, tables, device_memory, device_kv, device_workspace;
  std::optional<MemorySlice> device_lent;  // of the workspace
  std::unique_ptr<tier::Budget> weights_budget, kv_budget, device_budget, device_kv_budget, device_lent_budget;
  std::unique_ptr<SimCopyQueue> up, within;
  std::unique_ptr<cpu::CpuDevice> device;
  std::unique_ptr<SimDevice> accelerator;
  std::unique_ptr<tier::TierManager> tiers;
  std::optional<plan::WeightBlocks> blocks;
  std::optional<plan::WeightStream> weights, device_weights;
  std::unique_ptr<plan::KvStore> kv;
  std::unique_ptr<plan::ExpertRunner> experts;
  std::unique_ptr<plan::Executor> executor;

  SequenceId sequence();
  // Tokens appended to a sequence, all of them wanting logits.
  void append(Batch& batch, SequenceId sequence, const std::vector<int32_t>& tokens, size_t first, size_t count) const;
  Result<std::vector<Floats>> step(const Batch& batch);
  // Feeds in steps of at most `chunk`; a row of logits for each token.
  std::vector<Floats> feed(SequenceId sequence, const std::vector<int32_t>& tokens, size_t chunk = 64);
  Result<std::vector<Floats>> try_feed(SequenceId sequence, const std::vector<int32_t>& tokens, size_t chunk = 64);
  uint32_t length(SequenceId sequence) const { return kv->length(sequence).value(); }
  // Lets everything come to rest.
  void settle();

 private:
  plan::Plan make_plan() const;
  void force(plan::Plan& plan) const;
  void add_accelerator();
};

std::vector<int32_t> random_tokens(size_t n, uint64_t seed, uint32_t n_vocab = 97);
bool same_bits(const std::vector<Floats>& a, const std::vector<Floats>& b);
// The largest difference, relative to the largest value of the row.
double distance(const Floats& got, const std::vector<double>& want);

}  // namespace sluice::testing
