#include "engine/runtime.h"

#include <algorithm>

#include "core/error.h"
#include "engine/trace_file.h"
#include "gpu/ranges.h"
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

}  // namespace

Runtime::Runtime(Blueprint blueprint)
    : blueprint_(std::move(blueprint)),
      charges_("--ram", blueprint_.plan.host()),
      pressure_(blueprint_.pressure, blueprint_.ram_automatic ? blueprint_.plan.host().budget : 0) {}

Runtime::~Runtime() {
  executor_.reset();
  kv_.reset();
  for (auto& accelerator : accelerators_) accelerator->drop_stream();
  weights_.reset();
  blocks_.reset();
  tiers_.reset();
  accelerators_.clear();
  device_.reset();
  store_.reset();
  write_trace();
}

Result<std::unique_ptr<Runtime>> Runtime::start(Blueprint blueprint) {
  const uint64_t start = now_ns();
  std::unique_ptr<Runtime> runtime(new Runtime(std::move(blueprint)));
  SLUICE_RETURN_IF_ERROR(runtime->charges_.take(runtime->plan().host()));
  if (!runtime->blueprint_.options.trace_file.empty()) runtime->trace_ = std::make_unique<Trace>(trace_spans);
  SLUICE_RETURN_IF_ERROR(runtime->take_memory());
  SLUICE_RETURN_IF_ERROR(runtime->take_accelerators());
  SLUICE_RETURN_IF_ERROR(runtime->open_files());
  SLUICE_RETURN_IF_ERROR(runtime->make_tiers());
  SLUICE_RETURN_IF_ERROR(runtime->load(runtime->blueprint_.options.progress));
  runtime->load_seconds_ = static_cast<double>(now_ns() - start) * 1e-9;
  return runtime;
}

Status Runtime::take_memory() {
  const uint64_t weights = plan().host().weight_arena_bytes(), kv = plan().kv_arena_bytes(plan::host_site);
  const bool prefault = !blueprint_.gpus.empty();
  SLUICE_ASSIGN_OR_RETURN(weights_memory_, cpu::HostMemory::create(std::max(weights, io_unit), prefault));
  SLUICE_ASSIGN_OR_RETURN(kv_memory_, cpu::HostMemory::create(std::max(kv, io_unit), prefault));
  weights_budget_.emplace("weights", weights);
  kv_budget_.emplace("kv", kv);
  return {};
}

// The host's workspace is memory that all sites reach: the first accelerator's pinned memory where there is one.
Status Runtime::take_accelerators() {
  const uint64_t shared = plan::table_bytes(graph(), plan()) + plan::workspace_bytes(graph(), plan(), plan::host_site);
  if (blueprint_.gpus.empty()) {
    SLUICE_ASSIGN_OR_RETURN(workspace_, cpu::HostMemory::create(shared));
    tables_ = workspace_->base();
    return {};
  }
  for (size_t i = 0; i < blueprint_.gpus.size(); ++i) {
    Accelerator::Options options;
    options.device = blueprint_.gpus[i];
    options.site = static_cast<uint8_t>(i + 1);
    options.tier = TierId{static_cast<uint16_t>(2 + Accelerator::n_tiers * i)};
    options.host = weights_memory_.get();
    options.pages = plan().numerics.has_far_pages() ? kv_memory_.get() : nullptr;
    options.shared_bytes = i == 0 ? shared : 0;
    options.trace = trace_.get();
    SLUICE_ASSIGN_OR_RETURN(auto accelerator, Accelerator::open(graph(), plan(), options));
    if (const auto& warn = blueprint_.options.warn; warn && !accelerator->gpu().warning().empty())
      warn(accelerator->gpu().warning());
    accelerators_.push_back(std::move(accelerator));
  }
  tables_ = accelerators_.front()->shared();
  return {};
}

Status Runtime::open_files() {
  storage::StoreOptions options;
  options.mode = load_mode(blueprint_.options.load);
  options.trace = trace_.get();
  options.region = {weights_memory_->base(), plan().host().weight_arena_bytes()};
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
  options.max_blocks = plan::block_count(graph(), plan());
  tiers_ = std::make_unique<tier::TierManager>(options);
  tiers_->add_tier("weights", *weights_memory_, *weights_budget_);
  tiers_->add_tier("kv", *kv_memory_, *kv_budget_);
  for (auto& accelerator : accelerators_) accelerator->add_tiers(*tiers_);
  SLUICE_ASSIGN_OR_RETURN(auto blocks, plan::WeightBlocks::create(*tiers_, plan().movement.weights));
  blocks_.emplace(std::move(blocks));
  make_streams();
  make_kv_store();
  make_executor();
  return {};
}

void Runtime::make_streams() {
  weights_.emplace(*tiers_, host_tier, *blocks_, graph(), plan(), plan::host_site);
  for (auto& accelerator : accelerators_) accelerator->make_stream(*tiers_, *blocks_);
}

void Runtime::make_executor() {
  plan::Executor::Parts parts;
  parts.graph = &graph();
  parts.plan = &plan();
  parts.store = store_.get();
  parts.kv = kv_.get();
  parts.tables = tables_;
  std::byte* const workspace = tables_ + plan::table_bytes(graph(), plan());
  parts.sites = {{device_.get(), &*weights_, plan().computes(plan::host_site) ? workspace : nullptr, nullptr}};
  for (auto& accelerator : accelerators_) parts.sites.push_back(accelerator->parts());
  parts.trace = trace_.get();
  parts.ranges = gpu::profiler_ranges();
  executor_ = std::make_unique<plan::Executor>(parts);
}

Result<plan::StepResult> Runtime::step(const Batch& batch) {
  if (executor_ == nullptr) return failure_;
  return executor_->step(batch);
}

void Runtime::make_kv_store() {
  plan::KvStore::Options options = plan::KvStore::options_of(graph(), plan());
  options.pools = {{TierId{1}, plan().host().kv_kept_pages, plan().host().kv_group_pages, nullptr}};
  for (auto& accelerator : accelerators_) options.pools.push_back(accelerator->kv_pool());
  plan::StepTables tables;
  plan::lay_out_tables(graph(), plan(), tables_, tables);
  options.tables = tables.pages;
  kv_ = std::make_unique<plan::KvStore>(*tiers_, options);
}

namespace {

// Of all sites together.
struct Progress {
  const std::function<void(uint64_t, uint64_t)>& report;
  uint64_t before = 0, total = 0;
};
void report_progress(void* context, uint64_t done, uint64_t) {
  const auto& progress = *static_cast<Progress*>(context);
  if (progress.report) progress.report(progress.before + done, progress.total);
}

}  // namespace

// What the host keeps is copied from there; the rest passes through its memory.
Status Runtime::load(const std::function<void(uint64_t, uint64_t)>& report) {
  Progress progress{report};
  for (const plan::Holding& site : plan().movement.sites) progress.total += site.resident_bytes;
  SLUICE_RETURN_IF_ERROR(weights_->load(report_progress, &progress));
  progress.before = plan().host().resident_bytes;
  for (size_t i = 0; i < accelerators_.size(); ++i) {
    SLUICE_RETURN_IF_ERROR(accelerators_[i]->weights().load(report_progress, &progress));
    progress.before += plan().movement.sites[i + 1].resident_bytes;
  }
  return {};
}

void Runtime::write_trace() {
  if (trace_ == nullptr) return;
  const Status status = write_trace_file(*trace_, blueprint_.options.trace_file);
  if (!status.ok() && blueprint_.options.warn) blueprint_.options.warn(status.message());
}

}  // namespace sluice::engine
