#include "cpu/kernels/declare.h"
#include "cpu/kernels/vector.h"

namespace sluice::cpu::SLUICE_ISA {
namespace {

// Strictly: equal logits keep their order. NaN is worse than all else.
[[gnu::always_inline]] inline bool better(float a, float b) { return a > b || (b != b && a == a); }

// The k best of n, best first, by insertion.
void choose(const float* logits, uint32_t n, uint32_t k, int32_t* ids) {
  uint32_t count = 0;
  for (uint32_t e = 0; e < n; ++e) {
    const float x = logits[e];
    if (count == k && !better(x, logits[ids[k - 1]])) continue;
    uint32_t at = count < k ? count++ : k - 1;
    for (; at > 0 && better(x, logits[ids[at - 1]]); --at) ids[at] = ids[at - 1];
    ids[at] = static_cast<int32_t>(e);
  }
}

// The softmax over all, divided by the sum of the chosen, is the softmax over the chosen.
void weigh(const float* logits, const int32_t* ids, uint32_t k, float* weights) {
  const float best = logits[ids[0]];
  float total = 0;
  for (uint32_t s = 0; s < k; s += lanes) {
    const uint32_t n = k - s < lanes ? k - s : lanes;
    float x[lanes] = {};
    for (uint32_t i = 0; i < n; ++i) x[i] = logits[ids[s + i]] - best;
    store_part(weights + s, exp(load(x)), n);
    for (uint32_t i = 0; i < n; ++i) total += weights[s + i];
  }
  for (uint32_t s = 0; s < k; ++s) weights[s] /= total;
}

}  // namespace

void route(const RouteCall& call, Share share) {
  const Part tokens = part_of(call.n_tokens, share, 1);
  if (call.k == 0) return;
  for (uint64_t t = tokens.begin; t < tokens.end; ++t) {
    const float* logits = call.logits + t * call.n_experts;
    choose(logits, call.n_experts, call.k, call.ids + t * call.k);
    weigh(logits, call.ids + t * call.k, call.k, call.weights + t * call.k);
  }
}

}  // namespace sluice::cpu::SLUICE_ISA
