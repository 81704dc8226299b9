#include "engine/runtime.h"

#include "core/error.h"
#include "engine/trace_file.h"
#include "storage/open_store.h"

namespace sluice::engine {
namespace {

storage::LoadMode load_mode(Load load) {
  switch (load) {
    case Load::automatic: return storage::LoadMode::automatic;
    case Load::direct: return storage::LoadMode::direct;
    case Load::buffered: return storage::LoadMode::buffered;
  }
  return storage::LoadMode::automatic;
}

plan::KvStore::Options kv_options(const Graph& g, const plan::Plan& plan) {
  plan::KvStore::Options options;
  const plan::Holding& host = plan.host();
  options.pools = {{TierId{1}, host.kv_kept_pages, host.kv_group_pages, nullptr}};
  options.layer_pool.assign(g.n_layers, 0);
  options.n_kv_heads = g.n_kv_heads;
  options.page_tokens = plan.numerics.page_tokens;
  options.page_bytes = plan.numerics.page_tokens * g.kv_values() * kv_bytes(plan.numerics.kv_type);
  options.context = plan.context;
  options.max_sequences = plan.workspace.sequences;
  return options;
}

uint32_t block_count(const Graph& g, const plan::Plan& plan) {
  const uint64_t pages = 2ull * g.n_layers * plan.movement.pages_per_sequence * plan.workspace.sequences;
  return static_cast<uint32_t>(plan.movement.weights.blocks.size() + pages + 64);
}

}  // namespace

Runtime::Runtime(Blueprint blueprint) : blueprint_(std::move(blueprint)), ram_("--ram", blueprint_.options.ram) {}

Runtime::~Runtime() {
  executor_.reset();
  kv_.reset();
  weights_.reset();
  blocks_.reset();
  tiers_.reset();
  device_.reset();
  store_.reset();
  write_trace();
}

Result<std::unique_ptr<Runtime>> Runtime::start(Blueprint blueprint) {
  const uint64_t start = now_ns();
  std::unique_ptr<Runtime> runtime(new Runtime(std::move(blueprint)));
  SLUICE_RETURN_IF_ERROR(runtime->charge());
  SLUICE_RETURN_IF_ERROR(runtime->take_memory());
  SLUICE_RETURN_IF_ERROR(runtime->open_files());
  SLUICE_RETURN_IF_ERROR(runtime->make_tiers());
  SLUICE_RETURN_IF_ERROR(runtime->load());
  runtime->load_seconds_ = static_cast<double>(now_ns() - start) * 1e-9;
  return runtime;
}

// Every line of the plan's memory becomes a charge; what the plan promised always fits.
Status Runtime::charge() {
  for (const plan::NamedBytes& item : plan().host().memory) {
    SLUICE_ASSIGN_OR_RETURN(auto charge, ram_.reserve(item.bytes, item.name));
    charges_.push_back(std::move(charge));
  }
  if (!blueprint_.options.trace_file.empty()) trace_ = std::make_unique<Trace>(trace_spans);
  return {};
}

Status Runtime::take_memory() {
  const uint64_t workspace = plan::workspace_bytes(graph(), plan(), plan::host_site);
  const uint64_t tables = plan::table_bytes(graph(), plan());
  const uint64_t weights = plan().host().weight_arena_bytes(), kv = plan().kv_arena_bytes(plan::host_site);
  SLUICE_ASSIGN_OR_RETURN(memory_, cpu::HostMemory::create(weights + kv + tables + workspace));
  weights_memory_.emplace(*memory_, 0, weights);
  kv_memory_.emplace(*memory_, weights, kv);
  weights_budget_.emplace("weights", weights);
  kv_budget_.emplace("kv", kv);
  return {};
}

Status Runtime::open_files() {
  storage::StoreOptions options;
  options.mode = load_mode(blueprint_.options.load);
  options.trace = trace_.get();
  options.region = {memory_->base(), plan().host().weight_arena_bytes()};
  if (const auto& warn = blueprint_.options.warn) options.warn = [warn](const std::string& line) { warn(line); };
  std::vector<std::string> warnings;
  SLUICE_ASSIGN_OR_RETURN(store_, storage::open_store(options, &warnings));
  if (blueprint_.wrap_store) store_ = blueprint_.wrap_store(std::move(store_));
  for (const std::string& warning : warnings)
    if (blueprint_.options.warn) blueprint_.options.warn(warning);
  for (uint32_t i = 0; i < blueprint_.model.files.size(); ++i) {
    SLUICE_ASSIGN_OR_RETURN(const FileId file, store_->open(blueprint_.model.files[i]));
    SLUICE_CHECK(file == FileId{i});
  }
  return {};
}

Status Runtime::make_tiers() {
  blueprint_.cpu.trace = trace_.get();
  SLUICE_ASSIGN_OR_RETURN(device_, cpu::CpuDevice::create(blueprint_.cpu));
  tier::TierManager::Options options;
  options.store = store_.get();
  options.spill_directory = blueprint_.options.spill_directory;
  options.spill_bytes = plan().movement.spill_bytes;
  options.max_blocks = block_count(graph(), plan());
  tiers_ = std::make_unique<tier::TierManager>(options);
  tiers_->add_tier("weights", *weights_memory_, *weights_budget_);
  tiers_->add_tier("kv", *kv_memory_, *kv_budget_);
  SLUICE_ASSIGN_OR_RETURN(auto blocks, plan::WeightBlocks::create(*tiers_, plan().movement.weights));
  blocks_.emplace(std::move(blocks));
  weights_.emplace(*tiers_, host_tier, *blocks_, graph(), plan(), plan::host_site);
  kv_ = std::make_unique<plan::KvStore>(*tiers_, kv_options(graph(), plan()));

  plan::Executor::Parts parts;
  parts.graph = &graph();
  parts.plan = &plan();
  parts.store = store_.get();
  parts.kv = kv_.get();
  parts.tables = memory_->base() + plan().host().weight_arena_bytes() + plan().kv_arena_bytes(plan::host_site);
  parts.sites = {{device_.get(), &*weights_, parts.tables + plan::table_bytes(graph(), plan())}};
  parts.trace = trace_.get();
  executor_ = std::make_unique<plan::Executor>(parts);
  return {};
}

Status Runtime::load() {
  auto report = [](void* context, uint64_t done, uint64_t total) {
    const auto& progress = static_cast<Runtime*>(context)->blueprint_.options.progress;
    if (progress) progress(done, total);
  };
  return weights_->load(report, this);
}

void Runtime::write_trace() {
  if (trace_ == nullptr) return;
  const Status status = write_trace_file(*trace_, blueprint_.options.trace_file);
  if (!status.ok() && blueprint_.options.warn) blueprint_.options.warn(status.message());
}

}  // namespace sluice::engine
