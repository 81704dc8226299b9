// The small kernels of a layer, and what a launch costs.
#include <cuda_runtime.h>

#include <vector>

#include "bench/gpu/rig.h"
#include "core/error.h"
#include "gpu/cuda_error.h"
#include "gpu/kernels/rates.h"

namespace sluice::bench {
namespace {

Status one(Rig& rig, const std::string& name, uint32_t n, const KernelCall& call) {
  const uint32_t calls = 64;
  return rig.time(name, fmt::format("n={}", n), calls, cost(call).bytes, 0, [&](uint32_t) { return call; });
}

// The best tokens of a row of logits, its tables in the card's memory, as those of a recorded step are.
Status bench_best(Rig& rig) {
  std::vector<int32_t> recent(most_recent);
  for (size_t i = 0; i < recent.size(); ++i) recent[i] = static_cast<int32_t>(i * 97);
  auto* row = reinterpret_cast<BestLogitsRow*>(rig.out());
  auto* ids = reinterpret_cast<int32_t*>(rig.out() + 64);
  auto* best = reinterpret_cast<TokenLogit*>(rig.host());
  const auto put = [&](void* to, const void* from, uint64_t bytes) {
    return gpu::to_status(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "tables");
  };
  SLUICE_RETURN_IF_ERROR(put(ids, recent.data(), recent.size() * sizeof(int32_t)));
  for (const uint32_t n_vocab : {128256u, 262144u})
    for (const BestLogitsRow asked : {BestLogitsRow{1, 0, 1.0f}, {40, 0, 1.0f}, {40, 64, 1.1f}, {most_best, 0, 1.0f}}) {
      SLUICE_RETURN_IF_ERROR(put(row, &asked, sizeof asked));
      const BestLogitsCall call{reinterpret_cast<const float*>(rig.x()), row, ids, 1, n_vocab, best};
      const std::string what = fmt::format("{} tokens, k={}, {} recent", n_vocab, asked.k, asked.n_recent);
      SLUICE_RETURN_IF_ERROR(
          rig.time("best_logits", what, 64, cost(KernelCall(call)).bytes, 0, [&](uint32_t) { return call; }));
    }
  return {};
}

}  // namespace

Status bench_elementwise(Rig& rig) {
  SLUICE_RETURN_IF_ERROR(bench_best(rig));
  auto* x = reinterpret_cast<float*>(rig.x());
  float* y = rig.out();
  auto* positions = reinterpret_cast<int32_t*>(rig.host());
  auto* index = reinterpret_cast<uint32_t*>(rig.host() + (64 << 10));
  const auto** rows = reinterpret_cast<const std::byte**>(rig.host() + (128 << 10));
  for (uint32_t i = 0; i < 2048; ++i) {
    positions[i] = static_cast<int32_t>(i);
    index[i] = i;
    rows[i] = rig.weights() + i * row_bytes(DType::q4_k, 4096) * 7;
  }
  for (const uint32_t n : {1u, 16u, 512u, 2048u}) {
    SLUICE_RETURN_IF_ERROR(one(rig, "gather_rows", n, GatherRowsCall{rows, DType::q4_k, n, 4096, 1.0f, y}));
    SLUICE_RETURN_IF_ERROR(one(rig, "rms_norm", n, RmsNormCall{x, x, 1e-5f, n, 4096, y}));
    SLUICE_RETURN_IF_ERROR(one(rig, "rms_norm 8192", n, RmsNormCall{x, x, 1e-5f, n, 8192, y}));
    SLUICE_RETURN_IF_ERROR(
        one(rig, "quantize", n, QuantizeCall{x, ActFormat::q8, n, 4096, reinterpret_cast<std::byte*>(y)}));
    SLUICE_RETURN_IF_ERROR(
        one(rig, "quantize ffn", n, QuantizeCall{x, ActFormat::q8, n, 14336, reinterpret_cast<std::byte*>(y)}));
    SLUICE_RETURN_IF_ERROR(one(rig, "rope_table", n, RopeTableCall{positions, x, n, 128, 1.0f, y}));
    SLUICE_RETURN_IF_ERROR(one(rig, "rope", n, RopeCall{y, x, n, 32, 128, 128, false}));
    SLUICE_RETURN_IF_ERROR(one(rig, "gated_act", n, GatedActCall{x, x, Activation::silu, n, 14336, y}));
    SLUICE_RETURN_IF_ERROR(one(rig, "softcap", n, SoftcapCall{y, n, 4096, 30.0f}));
    SLUICE_RETURN_IF_ERROR(one(rig, "copy_rows", n, CopyRowsCall{x, index, n, 4096, y}));
  }
  return {};
}

Status bench_launches(Rig& rig) {
  gpu::CallTimer& timer = rig.timer();
  const auto nothing = [&](uint32_t) { return gpu::do_nothing(timer.stream()); };
  SLUICE_ASSIGN_OR_RETURN(const double graph, timer.us(1000, rig.repeats, nothing));
  rig.report("launch", "empty, one of 1000 in a graph", graph, 0, 0);
  SLUICE_ASSIGN_OR_RETURN(const double stream, timer.launched_us(1000, rig.repeats, nothing));
  rig.report("launch", "empty, one of 1000 in a stream", stream, 0, 0);
  SLUICE_ASSIGN_OR_RETURN(const double alone, timer.launched_us(1, 101, nothing));
  rig.report("launch", "empty, alone", alone, 0, 0);
  SLUICE_ASSIGN_OR_RETURN(const double small_graph, timer.us(1, 101, nothing));
  rig.report("launch", "graph of one empty", small_graph, 0, 0);
  return {};
}

}  // namespace sluice::bench
