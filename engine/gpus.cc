#include "engine/gpus.h"

#include <algorithm>

#include "core/error.h"
#include "gpu/gpu.h"
#include "gpu/probe.h"

namespace sluice::engine {
namespace {

uint32_t widest_row(const Graph& g) {
  uint32_t most = g.hidden_size;
  for (const TensorSpec& tensor : g.tensors) most = std::max(most, tensor.cols);
  return most;
}

// What is left to others of what is free: a desktop, a browser.
uint64_t margin(uint64_t free) { return std::min(free, std::max(256 * MiB, free / 32)); }

// What this engine holds there already, its context among it, counts.
Result<uint64_t> budget_of(uint64_t asked, uint64_t free, uint64_t held, int device) {
  const uint64_t most = free + held;
  if (asked == EngineOptions::automatic) return most - margin(free);
  if (asked <= most) return asked;
  return error(Code::over_budget, "--vram {}: GPU {} has {} free", format_size(asked), device, format_size(most));
}

constexpr uint64_t usual_context = 512 * MiB;

plan::AcceleratorRequest request_for(const EngineOptions& o, const Graph& g, std::string id, uint64_t budget,
                                     uint64_t context) {
  plan::AcceleratorRequest request;
  request.device = std::move(id);
  request.budget = budget;
  request.wanted = o.vram != EngineOptions::automatic;
  request.scratch_bytes = gpu::kernel_scratch_bytes(
      {g.n_heads, g.head_dim, widest_row(g), o.context, std::min(o.context, most_step_tokens), g.n_vocab});
  request.fixed = {{"context", context}, {"granules", 2 * gpu::gpu_memory_cost(1)}};
  return request;
}

}  // namespace

uint32_t threads_beside_gpus(uint32_t cores) { return cores - (cores > 8 ? 2 : cores > 2 ? 1 : 0); }

std::string gpu_id(int device) { return fmt::format("gpu {}", device); }

Result<GpuChoice> choose_gpus(const EngineOptions& o, const Graph& g) {
  GpuChoice choice;
  if (o.vram == 0) return choice;
  const bool asked = o.vram != EngineOptions::automatic;
  const gpu::Probe probe = gpu::probe();
  if (probe.built) choice.reason = probe.reason;
  if (!probe.available) {
    if (asked) return error(Code::unavailable, "--vram: {}", probe.reason);
    return choice;
  }
  const int device = probe.devices.front().index;
  const auto space = gpu::gpu_space(device);
  if (!space.ok()) {
    if (asked) return space.status();
    choice.reason = space.status().message();
    return choice;
  }
  SLUICE_ASSIGN_OR_RETURN(const uint64_t budget, budget_of(o.vram, space->free, space->context, device));
  choice.devices.push_back(device);
  choice.accelerators.push_back(request_for(o, g, gpu_id(device), budget, space->context));
  return choice;
}

Result<uint64_t> vram_budget(uint64_t asked, int device, uint64_t held) {
  SLUICE_ASSIGN_OR_RETURN(const gpu::GpuSpace space, gpu::gpu_space(device));
  return budget_of(asked, space.free, held, device);
}

GpuChoice gpus_of(const Machine& machine, const EngineOptions& o, const Graph& g) {
  GpuChoice choice;
  if (o.vram == 0 || machine.devices.size() < 2) return choice;
  const std::string& id = machine.devices[1].id;
  const TierRates* memory = machine.tier(id);
  const uint64_t most = memory != nullptr ? memory->capacity : 0;
  const uint64_t budget = o.vram != EngineOptions::automatic ? o.vram : most - margin(most);
  choice.devices.push_back(0);
  choice.accelerators.push_back(request_for(o, g, id, budget, usual_context));
  return choice;
}

}  // namespace sluice::engine
