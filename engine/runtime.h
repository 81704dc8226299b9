// Runtime: the composition root: a model, a plan, and the tiers, devices and stores that carry it out.
//
// Everything that is held is charged to one Budget of the size of EngineOptions::ram. Members are made
// in the order of their declaration and die in the reverse one. Budgets may change while it runs: then weights are
// given back, and taken and loaded anew under another Movement, while KV, workspaces and queues stay (resize.cc).
// Threads: step(), resize() and the sequences by one thread at a time (Session holds `mutex`). What a resize changes of
// the plan is read by other threads under `plan_mutex`.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "cpu/cpu_device.h"
#include "cpu/host_memory.h"
#include "engine/accelerator.h"
#include "engine/model.h"
#include "engine/pressure.h"
#include "offload/plan/executor.h"
#include "offload/plan/planner.h"
#include "sluice/options.h"

namespace sluice::engine {

// Options with every default filled in, and what follows from them, up to the plan.
struct Blueprint {
  EngineOptions options;
  Model model;
  Machine machine;
  plan::PlanRequest request;  // what the plan was made from
  plan::Plan plan;
  cpu::CpuOptions cpu;
  std::string cpu_library;  // that multiplies the CPU's prompts; or empty
  std::vector<int> gpus;    // of the plan's sites behind the host's, as CUDA counts them
  std::string no_gpu;       // one line: why there is none that could be used; or empty
  // What the runtime reads and writes through instead of the store of its options; empty: that one itself.
  std::function<std::unique_ptr<Store>(std::unique_ptr<Store>)> wrap_store;
  bool ram_automatic = false;  // options.ram was what is affordable: it follows the machine's memory
  Pressure::Options pressure;
};

// For Purpose::plan a machine file describes a machine that need not be this one.
enum class Purpose : uint8_t { plan, run };

// Reads the model's description, measures the machine and plans; loads nothing.
Result<Blueprint> draw_up(const EngineOptions& options, Purpose purpose = Purpose::run);

class Runtime {
 public:
  // Takes the memory, opens the files, and reads what the plan keeps. `unavailable` and `over_budget` may mean
  // that a GPU is no longer what it was when the plan was made.
  static Result<std::unique_ptr<Runtime>> start(Blueprint blueprint);
  ~Runtime();

  const Blueprint& blueprint() const { return blueprint_; }
  const Graph& graph() const { return blueprint_.model.graph; }
  const plan::Plan& plan() const { return blueprint_.plan; }
  // One step; after a resize that failed, why it did.
  Result<plan::StepResult> step(const Batch& batch);
  plan::KvStore& kv() { return *kv_; }

  // Engine::resize().
  Status resize(uint64_t ram, uint64_t vram);
  // Looks at the machine's memory now and then, and resizes where it must, or may again. options.warn is told.
  void adapt();

  const tier::Budget& ram() const { return charges_.budget(); }
  StoreStats disk() const { return store_->stats(); }
  std::string store_description() const { return store_->describe(); }
  const cpu::CpuDevice& device() const { return *device_; }
  const std::vector<std::unique_ptr<Accelerator>>& accelerators() const { return accelerators_; }
  tier::TierStats weights_tier() const { return tiers_->stats(TierId{0}); }
  tier::TierStats kv_tier() const { return tiers_->stats(TierId{1}); }
  double load_seconds() const { return load_seconds_; }
  const Trace* trace() const { return trace_.get(); }  // null where none was asked for
  std::mutex& mutex() { return mutex_; }
  std::mutex& plan_mutex() const { return plan_mutex_; }

 private:
  explicit Runtime(Blueprint blueprint);
  Status take_accelerators();
  Status take_memory();
  Status open_files();
  Status make_tiers();
  void make_kv_store();
  void make_streams();
  void make_executor();
  Status load(const std::function<void(uint64_t, uint64_t)>& progress);
  void write_trace();

  // resize.cc
  Result<plan::PlanRequest> request_for(uint64_t ram, uint64_t vram) const;
  Status change_to(const plan::PlanRequest& request);
  Status set_limits(const plan::Plan& next);
  void ask_for_what_is_planned();
  Status make_do(const plan::PlanRequest& request, const Status& why);
  Status move_to(plan::Plan next);
  void drop_weights();
  Status take_weights();
  void warn(const std::string& line) const;

  Blueprint blueprint_;
  Charges charges_;
  std::unique_ptr<Trace> trace_;
  std::unique_ptr<cpu::HostMemory> weights_memory_, kv_memory_;
  std::unique_ptr<cpu::HostMemory> workspace_;  // tables, then activations; an accelerator's where there is one
  std::byte* tables_ = nullptr;
  std::optional<tier::Budget> weights_budget_, kv_budget_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<cpu::CpuDevice> device_;
  std::vector<std::unique_ptr<Accelerator>> accelerators_;
  std::unique_ptr<tier::TierManager> tiers_;
  std::optional<plan::WeightBlocks> blocks_;
  std::optional<plan::WeightStream> weights_;
  std::unique_ptr<plan::KvStore> kv_;
  std::unique_ptr<plan::Executor> executor_;  // null where a resize failed,
  Status failure_;                            // and why
  Pressure pressure_;
  double load_seconds_ = 0;
  std::mutex mutex_;
  mutable std::mutex plan_mutex_;
};

// draw_up() and Runtime::start(). Where a GPU that was not asked for turns out to have too little memory, or not to
// work, plans again with what there is, and at last without it; options.warn is told.
Result<std::unique_ptr<Runtime>> open_runtime(const EngineOptions& options);

}  // namespace sluice::engine
