// Attention of 32 heads of 128 over 8 kv heads in f16 pages of 64 tokens: one token at many depths, prompts, and the
// append.
#include "bench/gpu/sequence.h"

namespace sluice::bench {
namespace {

Status attend(Rig& rig, uint32_t depth, uint32_t n) {
  Sequence sequence(rig, depth, n);
  SLUICE_RETURN_IF_ERROR(sequence.place());
  const uint32_t calls = n > 64 ? 2 : 16;
  const auto make = [&](uint32_t) { return sequence.call(); };
  const std::string what = fmt::format("depth={} n={}", depth, n);
  SLUICE_RETURN_IF_ERROR(rig.time_launched("attention", what, calls, sequence.kv_bytes(), sequence.flops(), make));
  if (n > 16) return {};
  return rig.time("attention", what + " in a graph", calls, sequence.kv_bytes(), sequence.flops(),
                  [&](uint32_t) { return sequence.recorded(sequence.call()); });
}

}  // namespace

Status bench_attention(Rig& rig) {
  for (const uint32_t depth : {256u, 1024u, 4096u, 16384u, 65536u, 131072u})
    for (const uint32_t n : {1u, 8u}) SLUICE_RETURN_IF_ERROR(attend(rig, depth, n));
  for (const uint32_t n : {512u, 2048u}) SLUICE_RETURN_IF_ERROR(attend(rig, n, n));
  SLUICE_RETURN_IF_ERROR(attend(rig, 16384, 512));
  for (const uint32_t n : {1u, 512u}) {
    Sequence sequence(rig, 4096, n);
    SLUICE_RETURN_IF_ERROR(sequence.place());
    SLUICE_RETURN_IF_ERROR(rig.time("kv_append", fmt::format("n={}", n), 32, cost(KernelCall(sequence.append())).bytes,
                                    0, [&](uint32_t) { return sequence.append(); }));
  }
  return {};
}

}  // namespace sluice::bench
