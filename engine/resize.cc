// A Runtime under other budgets: what it holds of weights is given back, and taken and loaded anew.
#include <algorithm>

#include "core/error.h"
#include "engine/gpus.h"
#include "engine/runtime.h"
#include "engine/system.h"

namespace sluice::engine {
namespace {

// Nothing has to move.
bool lies_alike(const plan::Plan& a, const plan::Plan& b) {
  const auto alike = [](const plan::Holding& x, const plan::Holding& y) {
    return x.resident == y.resident && x.lent == y.lent && x.staging_bytes == y.staging_bytes &&
           (x.ahead_bytes == y.ahead_bytes || x.staging_bytes == 0);  // where nothing streams it says nothing
  };
  return std::equal(a.movement.sites.begin(), a.movement.sites.end(), b.movement.sites.begin(), b.movement.sites.end(),
                    alike);
}

std::string budgets_of(const plan::Plan& plan) {
  const auto& sites = plan.movement.sites;
  std::string text = fmt::format("--ram {}", format_size(sites.front().budget));
  if (sites.size() > 1) text += fmt::format(" --vram {}", format_size(sites[1].budget));
  return text;
}

}  // namespace

Status Runtime::resize(uint64_t ram, uint64_t vram) {
  std::lock_guard lock(mutex_);
  SLUICE_ASSIGN_OR_RETURN(const plan::PlanRequest request, request_for(ram, vram));
  SLUICE_RETURN_IF_ERROR(change_to(request));
  pressure_.begin(ram == 0 ? request.ram_budget : 0);
  return {};
}

// What this engine holds counts as free, as far as it has been touched.
Result<plan::PlanRequest> Runtime::request_for(uint64_t ram, uint64_t vram) const {
  plan::PlanRequest request = blueprint_.request;
  const uint64_t held = std::min(this->ram().used(), resident_memory());
  request.ram_budget = ram != 0 ? ram : affordable_ram(pressure_.free_memory() + held);
  if (accelerators_.empty() || request.accelerators.empty()) return request;
  SLUICE_ASSIGN_OR_RETURN(request.accelerators.front().budget,
                          vram_budget(vram, blueprint_.gpus.front(), accelerators_.front()->budget().used()));
  return request;
}

// From where the plan stands nothing can be refused but by the system: memory that others have taken, a disk that
// fails.
Status Runtime::change_to(const plan::PlanRequest& request) {
  const Graph& g = graph();
  SLUICE_ASSIGN_OR_RETURN(plan::Plan next, plan::replan(g, blueprint_.machine, request, plan()));
  if (executor_ != nullptr && lies_alike(next, plan())) return set_limits(next);
  drop_weights();
  Status status = move_to(std::move(next));
  if (status.code() == Code::over_budget) status = make_do(request, status);
  if (status.ok()) return status;
  drop_weights();
  failure_ = status.with_context("since the engine was resized it has no weights; resize it again");
  return status;
}

Status Runtime::set_limits(const plan::Plan& next) {
  std::lock_guard lock(plan_mutex_);
  auto& sites = blueprint_.plan.movement.sites;
  SLUICE_RETURN_IF_ERROR(charges_.set_limit(next.host().budget));
  for (size_t i = 0; i < accelerators_.size(); ++i)
    SLUICE_RETURN_IF_ERROR(accelerators_[i]->set_limit(next.movement.sites[i + 1].budget));
  for (size_t i = 0; i < sites.size(); ++i) sites[i].budget = next.movement.sites[i].budget;
  ask_for_what_is_planned();
  return {};
}

// Later plans begin with the budgets of this one.
void Runtime::ask_for_what_is_planned() {
  const auto& sites = plan().movement.sites;
  blueprint_.request.ram_budget = sites.front().budget;
  if (sites.size() > 1) blueprint_.request.accelerators.front().budget = sites[1].budget;
}

// What was to be taken is no longer there: with the least that works.
Status Runtime::make_do(const plan::PlanRequest& request, const Status& why) {
  drop_weights();
  auto least = plan::replan_sparingly(graph(), blueprint_.machine, request, plan());
  if (!least.ok()) return why;
  SLUICE_RETURN_IF_ERROR(move_to(std::move(*least)));
  warn(fmt::format("{}; going on with the least that works, {}: resize when there is more", why.message(),
                   budgets_of(plan())));
  return {};
}

// With nothing of the weights held.
Status Runtime::move_to(plan::Plan next) {
  {
    std::lock_guard lock(plan_mutex_);
    blueprint_.plan.movement.sites = std::move(next.movement.sites);
    blueprint_.plan.movement.table_resident = next.movement.table_resident;
    blueprint_.plan.prediction = std::move(next.prediction);
    ask_for_what_is_planned();
  }
  SLUICE_RETURN_IF_ERROR(take_weights());
  SLUICE_RETURN_IF_ERROR(load({}));
  make_executor();
  return {};
}

// In the order of use: accelerators copy from the host, and the store reads into what is registered with it.
void Runtime::drop_weights() {
  executor_.reset();
  for (auto& accelerator : accelerators_) accelerator->drop_weights(*tiers_, *blocks_);
  weights_.reset();
  blocks_->evict_all(host_tier);
  SLUICE_CHECK(tiers_->replace_memory(host_tier, nullptr).ok());
  store_->use_region({});
  weights_memory_.reset();
  charges_.drop_weights();
}

Status Runtime::take_weights() {
  const uint64_t bytes = plan().host().weight_arena_bytes();
  SLUICE_RETURN_IF_ERROR(charges_.take_weights(plan().host()));
  SLUICE_ASSIGN_OR_RETURN(weights_memory_, cpu::HostMemory::create(std::max(bytes, io_unit), !accelerators_.empty()));
  SLUICE_RETURN_IF_ERROR(weights_budget_->set_limit(bytes));
  SLUICE_RETURN_IF_ERROR(tiers_->replace_memory(host_tier, weights_memory_.get()));
  store_->use_region({weights_memory_->base(), bytes});
  for (auto& accelerator : accelerators_) {
    const bool pinned = accelerator->gpu().warning().empty();
    SLUICE_RETURN_IF_ERROR(accelerator->take_weights(*tiers_, *weights_memory_));
    if (const std::string& warning = accelerator->gpu().warning(); pinned && !warning.empty()) warn(warning);
  }
  make_streams();
  return {};
}

void Runtime::adapt() {
  std::lock_guard lock(mutex_);
  if (executor_ == nullptr || !pressure_.due(now_ns())) return;
  const uint64_t free = pressure_.free_memory(), before = ram().limit();
  const auto wanted = pressure_.decide({free, before, ram().used()}, now_ns());
  if (!wanted) return;
  plan::PlanRequest request = blueprint_.request;
  request.ram_budget = *wanted;
  const Status status = change_to(request);
  const std::string now = fmt::format("{} of memory are free", format_size(free));
  if (status.ok()) {
    warn(fmt::format("{}: --ram {} becomes {} until that changes; set --ram to keep it", now, format_size(before),
                     format_size(ram().limit())));
  } else if (pressure_.refused(now_ns())) {
    warn(
        fmt::format("{}, and this engine cannot do with less; end other programs, or begin anew with a smaller "
                    "context: {}",
                    now, status.message()));
  }
}

void Runtime::warn(const std::string& line) const {
  if (blueprint_.options.warn) blueprint_.options.warn(line);
}

}  // namespace sluice::engine
