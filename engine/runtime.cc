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
  options.tier = TierId{1};
  options.n_layers = g.n_layers;
  options.n_kv_heads = g.n_kv_heads;
  options.page_tokens = plan.numerics.page_tokens;
  options.page_bytes = plan.numerics.page_tokens * g.kv_values() * kv_bytes(plan.numerics.kv_type);
  options.context = plan.context;
  options.max_sequences = plan.workspace.sequences;
  options.kept_pages = plan.movement.kv_kept_pages;
  options.group_pages = plan.movement.kv_group_pages;
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
  for (const plan::NamedBytes& item : plan().memory) {
    SLUICE_ASSIGN_OR_RETURN(auto charge, ram_.reserve(item.bytes, item.name));
    charges_.push_back(std::move(charge));
  }
  if (!blueprint_.options.trace_file.empty()) trace_ = std::make_unique<Trace>(trace_spans);
  return {};
}

Status Runtime::take_memory() {
  plan::Workspace unused;
  const uint64_t workspace = plan::lay_out(graph(), plan().workspace, !plan().movement.table_resident, nullptr, unused);
  const uint64_t weights = plan().weight_arena_bytes(), kv = plan().kv_arena_bytes();
  SLUICE_ASSIGN_OR_RETURN(memory_, cpu::HostMemory::create(weights + kv + workspace));
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
  options.region = {memory_->base(), plan().weight_arena_bytes()};
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
  SLUICE_ASSIGN_OR_RETURN(auto weights, plan::WeightStream::create(*tiers_, host_tier, plan().movement));
  weights_.emplace(std::move(weights));
  kv_ = std::make_unique<plan::KvStore>(*tiers_, kv_options(graph(), plan()));

  plan::Executor::Parts parts;
  parts.graph = &graph();
  parts.plan = &plan();
  parts.store = store_.get();
  parts.weights = &*weights_;
  parts.kv = kv_.get();
  parts.device = device_.get();
  parts.workspace = memory_->base() + plan().weight_arena_bytes() + plan().kv_arena_bytes();
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
