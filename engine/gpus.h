// Which GPUs a plan may use, and how much of their memory.
#pragma once

#include <string>
#include <vector>

#include "core/graph.h"
#include "offload/plan/planner.h"
#include "sluice/options.h"

namespace sluice::engine {

struct GpuChoice {
  std::vector<int> devices;                            // as CUDA counts them
  std::vector<plan::AcceleratorRequest> accelerators;  // of the same; scratch is for steps of most_step_tokens
  std::string reason;  // one line: why none can be used; empty if this build has no GPU device
};

inline constexpr uint32_t most_step_tokens = 4096;

// The first GPU that can be used; of its memory options.vram, or what is free but for a margin. An error if
// options.vram asks for a GPU that is not there, or for more than it has left.
Result<GpuChoice> choose_gpus(const EngineOptions& options, const Graph& graph);

// The same for a machine that need not be this one: all of the memory of its first accelerator, or options.vram.
GpuChoice gpus_of(const Machine& machine, const EngineOptions& options, const Graph& graph);

// The budget that EngineOptions::vram = `asked` comes to on a device where this engine holds `held` bytes, its context
// among them. over_budget where there is less.
Result<uint64_t> vram_budget(uint64_t asked, int device, uint64_t held);

// How many of so many cores compute where GPUs do too: those that feed a GPU and that carry its progress want one each,
// of few cores one for both.
uint32_t threads_beside_gpus(uint32_t cores);

// The id of a GPU in a Machine.
std::string gpu_id(int device);

}  // namespace sluice::engine
