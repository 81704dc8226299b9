// A Runtime whose plan places ops on a GPU as a test says: on the stand-in, or on a real one.
#pragma once

#include "engine/accelerator.h"
#include "tests/engine/hf_fixtures.h"
#ifdef SLUICE_REAL_GPU
#include "tests/gpu/engine/real/device_scope.h"
#else
#include "tests/gpu/engine/standin/device_scope.h"
#endif
#include "tests/support/placement.h"

namespace sluice::test {

struct GpuEngineOptions {
  // Everything, unless said otherwise.
  std::function<bool(size_t op, bool prompt)> placed = [](size_t, bool) { return true; };
  std::function<uint32_t(size_t op, bool prompt)> split;  // as in testing::PlacementOptions
  double resident = 1;                                    // share of the GPU's matrices that stays there
  double host_resident = 0;                               // share of all matrices that stays with the host
  uint32_t near_pages = plan::all_pages, small_step = 0;  // as in testing::PlacementOptions
  DeviceOptions device;
  std::function<std::unique_ptr<Store>(std::unique_ptr<Store>)> wrap_store;
};

// The plan of `options` for the CPU, changed.
inline Result<engine::Blueprint> place_on_gpu(EngineOptions options, const GpuEngineOptions& o) {
  options.vram = 0;
  SLUICE_ASSIGN_OR_RETURN(engine::Blueprint b, engine::draw_up(options));
  plan::Holding& host = b.plan.movement.sites.front();
  if (o.split) b.plan.movement.weights = plan::cut(b.model.graph, 1);  // tiles of 16 rows, where FFNs can be split
  host.resident.resize(b.plan.movement.weights.blocks.size());
  const auto& blocks = b.plan.movement.weights.blocks;
  double carried = 0;
  host.resident_bytes = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    carried += o.host_resident;
    host.resident[i] = blocks[i].role == plan::BlockRole::vector || carried >= 0.999;
    if (carried >= 0.999) carried -= 1;
    if (host.resident[i]) host.resident_bytes += blocks[i].slot_bytes;
  }
  const uint64_t largest = b.plan.movement.weights.largest_slot(plan::BlockRole::matrix);
  host.staging_bytes = 3 * largest;
  host.ahead_bytes = largest;
  b.plan.movement.table_resident = false;
  host.memory.clear();
  b.gpus = {0};
  b.wrap_store = o.wrap_store;
  const Graph& g = b.model.graph;
  const uint64_t scratch = gpu::kernel_scratch_bytes(
      {g.n_heads, g.head_dim, g.hidden_size, b.plan.context, b.plan.workspace.tokens, g.n_vocab});
  testing::place(g, b.plan, {"gpu 0", o.placed, o.split, o.resident, o.near_pages, scratch, o.small_step});
  return b;
}

class GpuEngine {
 public:
  GpuEngine(const EngineOptions& options, const GpuEngineOptions& o) : scope_(o.device) {
    runtime = must(engine::Runtime::start(must(place_on_gpu(options, o))));
  }

 private:
  DeviceScope scope_;

 public:
  std::unique_ptr<engine::Runtime> runtime;  // dies before the device is asked what is left
};

}  // namespace sluice::test
