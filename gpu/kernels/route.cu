// The k best experts of each token and their weights.
//
// Bytes: the logits, k times from the cache. Flops: about 3 * k a logit. Bound by latency: a token is one
// warp's, and k choices follow one another.
//
// Experts have an order: larger logits first, equal ones by index, NaN last. Each round finds the first one
// behind the last one found, so nothing needs to be marked. A softmax over all experts divided by the sum of
// the chosen is the softmax over the chosen.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"

namespace sluice::gpu {
namespace {

struct Expert {
  float logit;
  int32_t id;  // -1: none
};

// Whether a comes before b.
SLUICE_DEVICE bool before(const Expert& a, const Expert& b) {
  const bool a_nan = a.logit != a.logit, b_nan = b.logit != b.logit;
  if (a_nan != b_nan) return b_nan;
  if (!a_nan && a.logit != b.logit) return a.logit > b.logit;
  return a.id < b.id;
}

SLUICE_DEVICE Expert first_of(const Expert& a, const Expert& b) {
  if (a.id < 0 || b.id < 0) return a.id < 0 ? b : a;
  return before(a, b) ? a : b;
}

// The first expert behind `last` (none: of all), in every lane.
SLUICE_DEVICE Expert next_expert(const float* logits, uint32_t n, const Expert& last) {
  Expert best{0.0f, -1};
  for (uint32_t e = lane(); e < n; e += 32) {
    const Expert expert{logits[e], static_cast<int32_t>(e)};
    if (last.id < 0 || before(last, expert)) best = first_of(best, expert);
  }
  SLUICE_UNROLL
  for (uint32_t mask = 16; mask > 0; mask /= 2)
    best = first_of(best, {shuffle_xor(best.logit, mask), shuffle_xor(best.id, mask)});
  return best;
}

SLUICE_KERNEL void route_kernel(RouteCall call) {
  const uint64_t token = block_x();
  const float* logits = call.logits + token * call.n_experts;
  int32_t* ids = call.ids + token * call.k;
  float* weights = call.weights + token * call.k;
  Expert last{0.0f, -1};
  float largest = 0.0f, sum = 0.0f;
  for (uint32_t s = 0; s < call.k; ++s) {
    last = next_expert(logits, call.n_experts, last);
    if (s == 0) largest = last.logit;
    if (lane() != s % 32) continue;  // this lane keeps choice s
    const float weight = expf(last.logit - largest);
    ids[s] = last.id;
    weights[s] = weight;
    sum += weight;
  }
  sum = warp_sum(sum);
  for (uint32_t s = lane(); s < call.k; s += 32) weights[s] /= sum;
}

}  // namespace

Status run(cudaStream_t stream, const RouteCall& call, const KernelContext&) {
  if (call.n_tokens == 0 || call.k == 0) return {};
  const LaunchShape shape{.grid_x = call.n_tokens, .block_x = 32};
  return launch(stream, launch_info("route", call), shape, route_kernel, call);
}

}  // namespace sluice::gpu
