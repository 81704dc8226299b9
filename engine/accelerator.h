// Accelerator: a site of the plan beside the host: a GPU, its memory carved as the plan says, and its tiers.
//
// Everything that is held there is charged to one Budget of the size of the site's. Made in two steps, since its
// tiers come behind the host's: open() takes the memory, add_tiers() makes it known. The memory of its weights can be
// replaced while the rest stays.
// Threads: as Runtime.
#pragma once

#include <memory>
#include <optional>

#include "engine/charges.h"
#include "gpu/gpu.h"
#include "offload/plan/executor.h"
#include "offload/tier/tier_manager.h"

namespace sluice::engine {

class Accelerator {
 public:
  struct Options {
    int device = 0;    // as CUDA counts them
    uint8_t site = 1;  // of the plan
    // Of its tiers: weights; the next ones are KV, and weights that are lent to the workspace.
    TierId tier{2};
    Memory* host = nullptr;     // from which weights are copied; outlives it, or drop_weights()
    Memory* pages = nullptr;    // of the host, from which KV is copied; outlives it; may be null
    uint64_t shared_bytes = 0;  // of host memory that it reaches
    Trace* trace = nullptr;
  };
  static constexpr uint16_t n_tiers = 3;

  // `graph` and `plan` outlive it. over_budget where others have taken the memory meanwhile.
  static Result<std::unique_ptr<Accelerator>> open(const Graph& graph, const plan::Plan& plan, const Options& options);

  void add_tiers(tier::TierManager& tiers);
  void make_stream(tier::TierManager& tiers, const plan::WeightBlocks& blocks);
  void drop_stream() { stream_.reset(); }

  // Gives back the stream, all copies of weights, their memory, and the host's that they came from. Nothing that was
  // enqueued may still use them; again is ok.
  void drop_weights(tier::TierManager& tiers, const plan::WeightBlocks& blocks);
  // Takes what the plan says now, copied from `host`. Where it fails some may be held: drop_weights().
  Status take_weights(tier::TierManager& tiers, Memory& host);
  Status set_limit(uint64_t bytes) { return charges_.set_limit(bytes); }

  gpu::Gpu& gpu() { return *gpu_; }
  const gpu::Gpu& gpu() const { return *gpu_; }
  plan::WeightStream& weights() { return *stream_; }
  std::byte* shared() { return gpu_->shared().base(); }
  plan::KvStore::Pool kv_pool();
  plan::Executor::SiteParts parts();
  const tier::Budget& budget() const { return charges_.budget(); }

 private:
  Accelerator(const Graph& graph, const plan::Plan& plan, const Options& options);
  Status start();
  void connect(tier::TierManager& tiers);
  const plan::Holding& holding() const { return plan_.movement.sites[options_.site]; }
  uint64_t weight_bytes() const { return holding().weight_arena_bytes(); }
  uint64_t kv_bytes() const { return plan_.kv_arena_bytes(options_.site); }
  TierId tier(uint16_t index) const { return TierId{static_cast<uint16_t>(options_.tier.value + index)}; }

  const Graph& graph_;
  const plan::Plan& plan_;
  const Options options_;
  Charges charges_;
  std::unique_ptr<gpu::Gpu> gpu_;
  std::optional<MemorySlice> kv_memory_, lent_memory_;
  tier::Budget weights_budget_, kv_budget_, lent_budget_;
  std::optional<plan::WeightStream> stream_;
};

}  // namespace sluice::engine
