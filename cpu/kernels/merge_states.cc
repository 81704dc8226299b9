#include "cpu/kernels/declare.h"
#include "cpu/kernels/vector.h"

namespace sluice::cpu::SLUICE_ISA {
namespace {

// out = a / l
void finish(const float* a, float l, uint32_t n, float* out) {
  for (uint32_t d = 0; d < n; ++d) out[d] = a[d] / l;
}

void merge_row(const float* a, const float* b, uint32_t head_dim, float* out) {
  const float l_a = a[1], l_b = b[1];
  if (l_a == 0.0f && l_b == 0.0f) return finish(a + 2, 1.0f, head_dim, out);  // zeros
  if (l_b == 0.0f) return finish(a + 2, l_a, head_dim, out);
  if (l_a == 0.0f) return finish(b + 2, l_b, head_dim, out);
  const float m = a[0] > b[0] ? a[0] : b[0];
  float change[lanes] = {a[0] - m, b[0] - m};
  store(change, exp(load(change)));
  const float l = l_a * change[0] + l_b * change[1];
  for (uint32_t d = 0; d < head_dim; ++d) out[d] = (a[2 + d] * change[0] + b[2 + d] * change[1]) / l;
}

}  // namespace

void merge_states(const MergeStatesCall& call, Share share) {
  const Part part = part_of(call.n_rows, share, 1);
  for (uint64_t row = part.begin; row < part.end; ++row) {
    const uint64_t state = row * (uint64_t{call.head_dim} + 2);
    merge_row(call.a + state, call.b + state, call.head_dim, call.out + row * call.head_dim);
  }
}

}  // namespace sluice::cpu::SLUICE_ISA
