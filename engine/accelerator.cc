#include "engine/accelerator.h"

#include "core/error.h"

namespace sluice::engine {

Accelerator::Accelerator(const Graph& graph, const plan::Plan& plan, const Options& options)
    : graph_(graph),
      plan_(plan),
      options_(options),
      charges_("--vram", holding()),
      weights_budget_("weights in VRAM", weight_bytes()),
      kv_budget_("KV in VRAM", kv_bytes()),
      lent_budget_("weights lent in VRAM", plan::lent_bytes(graph, plan, options.site)) {}

Result<std::unique_ptr<Accelerator>> Accelerator::open(const Graph& graph, const plan::Plan& plan,
                                                       const Options& options) {
  std::unique_ptr<Accelerator> made(new Accelerator(graph, plan, options));
  SLUICE_RETURN_IF_ERROR(made->start());
  return made;
}

// KV, then the workspace, of which the end is lent; weights apart.
Status Accelerator::start() {
  SLUICE_RETURN_IF_ERROR(charges_.take(holding()));
  gpu::GpuRequest request;
  request.device = options_.device;
  request.memory_tier = options_.tier;
  const uint64_t workspace = plan::workspace_bytes(graph_, plan_, options_.site);
  request.memory_bytes = kv_bytes() + workspace;
  request.weight_bytes = weight_bytes();
  request.scratch_bytes = holding().scratch_bytes;
  request.shared_bytes = options_.shared_bytes;
  request.host = options_.host;
  request.pages = options_.pages;
  request.trace = options_.trace;
  SLUICE_ASSIGN_OR_RETURN(gpu_, gpu::open_gpu(request));
  kv_memory_.emplace(gpu_->memory(), 0, kv_bytes());
  const uint64_t lent = lent_budget_.limit();
  lent_memory_.emplace(gpu_->memory(), kv_bytes() + workspace - lent, lent);
  return {};
}

void Accelerator::drop_weights(tier::TierManager& tiers, const plan::WeightBlocks& blocks) {
  stream_.reset();
  blocks.evict_all(options_.tier);
  blocks.evict_all(tier(2));
  SLUICE_CHECK(tiers.replace_memory(options_.tier, nullptr).ok());
  gpu_->drop_weights();
  charges_.drop_weights();
}

// A load that failed may have left the queues failed.
Status Accelerator::take_weights(tier::TierManager& tiers, Memory& host) {
  SLUICE_RETURN_IF_ERROR(charges_.take_weights(holding()));
  SLUICE_RETURN_IF_ERROR(weights_budget_.set_limit(weight_bytes()));
  SLUICE_RETURN_IF_ERROR(gpu_->take_weights(weight_bytes(), &host));
  SLUICE_RETURN_IF_ERROR(tiers.replace_memory(options_.tier, &gpu_->weights()));
  connect(tiers);
  gpu_->to_device().reset();
  gpu_->device().queue().reset();
  return {};
}

void Accelerator::add_tiers(tier::TierManager& tiers) {
  const TierId weights = tiers.add_tier("weights in VRAM", gpu_->weights(), weights_budget_);
  SLUICE_CHECK(weights == options_.tier);
  tiers.add_tier("KV in VRAM", *kv_memory_, kv_budget_);
  tiers.add_tier("weights lent in VRAM", *lent_memory_, lent_budget_);
  connect(tiers);
}

void Accelerator::connect(tier::TierManager& tiers) {
  for (const uint16_t weights : {0, 2}) tiers.connect(host_tier, tier(weights), gpu_->to_device());
}

void Accelerator::make_stream(tier::TierManager& tiers, const plan::WeightBlocks& blocks) {
  stream_.emplace(tiers, options_.tier, blocks, graph_, plan_, options_.site, tier(2));
}

plan::KvStore::Pool Accelerator::kv_pool() {
  return {tier(1), holding().kv_kept_pages, holding().kv_group_pages, &gpu_->within()};
}

plan::Executor::SiteParts Accelerator::parts() {
  std::byte* const workspace = plan_.computes(options_.site) ? gpu_->memory().base() + kv_bytes() : nullptr;
  return {&gpu_->device(), &*stream_, workspace, &gpu_->to_device()};
}

}  // namespace sluice::engine
