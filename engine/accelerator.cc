#include "engine/accelerator.h"

#include "core/error.h"

namespace sluice::engine {

Accelerator::Accelerator(const Graph& graph, const plan::Plan& plan, const Options& options)
    : graph_(graph),
      plan_(plan),
      options_(options),
      budget_("--vram", holding().budget),
      weights_budget_("weights in VRAM", weight_bytes()),
      kv_budget_("KV in VRAM", kv_bytes()) {}

Result<std::unique_ptr<Accelerator>> Accelerator::open(const Graph& graph, const plan::Plan& plan,
                                                       const Options& options) {
  std::unique_ptr<Accelerator> made(new Accelerator(graph, plan, options));
  SLUICE_RETURN_IF_ERROR(made->start());
  return made;
}

// Weights, then KV, then the workspace.
Status Accelerator::start() {
  for (const plan::NamedBytes& item : holding().memory) {
    SLUICE_ASSIGN_OR_RETURN(auto charge, budget_.reserve(item.bytes, item.name));
    charges_.push_back(std::move(charge));
  }
  gpu::GpuRequest request;
  request.device = options_.device;
  request.memory_tier = options_.tier;
  request.memory_bytes = weight_bytes() + kv_bytes() + plan::workspace_bytes(graph_, plan_, options_.site);
  request.scratch_bytes = holding().scratch_bytes;
  request.shared_bytes = options_.shared_bytes;
  request.host = options_.host;
  request.trace = options_.trace;
  SLUICE_ASSIGN_OR_RETURN(gpu_, gpu::open_gpu(request));
  weights_memory_.emplace(gpu_->memory(), 0, weight_bytes());
  kv_memory_.emplace(gpu_->memory(), weight_bytes(), kv_bytes());
  return {};
}

void Accelerator::add_tiers(tier::TierManager& tiers) {
  const TierId weights = tiers.add_tier("weights in VRAM", *weights_memory_, weights_budget_);
  SLUICE_CHECK(weights == options_.tier);
  tiers.add_tier("KV in VRAM", *kv_memory_, kv_budget_);
  tiers.connect(host_tier, weights, gpu_->to_device());
}

void Accelerator::make_stream(tier::TierManager& tiers, const plan::WeightBlocks& blocks) {
  stream_.emplace(tiers, options_.tier, blocks, graph_, plan_, options_.site);
}

plan::KvStore::Pool Accelerator::kv_pool() {
  const TierId tier{static_cast<uint16_t>(options_.tier.value + 1)};
  return {tier, holding().kv_kept_pages, holding().kv_group_pages, &gpu_->within()};
}

plan::Executor::SiteParts Accelerator::parts() {
  std::byte* const workspace =
      plan_.computes(options_.site) ? gpu_->memory().base() + weight_bytes() + kv_bytes() : nullptr;
  return {&gpu_->device(), &*stream_, workspace, &gpu_->to_device()};
}

}  // namespace sluice::engine
