#include <math.h>

#include "cpu/kernels/declare.h"
#include "cpu/kernels/vector.h"

namespace sluice::cpu::SLUICE_ISA {
namespace {

void rotate_halves(float* __restrict x, const float* __restrict table, uint32_t half) {
  for (uint32_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[half + i];
    x[i] = a * table[i] - b * table[half + i];
    x[half + i] = b * table[i] + a * table[half + i];
  }
}

void rotate_pairs(float* __restrict x, const float* __restrict table, uint32_t half) {
  for (uint32_t i = 0; i < half; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * table[i] - b * table[half + i];
    x[2 * i + 1] = b * table[i] + a * table[half + i];
  }
}

}  // namespace

void rope_table(const RopeTableCall& call, Share share) {
  const uint32_t half = call.n_rot / 2;
  const Part pairs = part_of(uint64_t{call.n_tokens} * half, share, lanes);
  for (uint64_t p = pairs.begin; p < pairs.end; ++p) {
    const uint64_t token = p / half, i = p % half;
    const double angle = static_cast<double>(call.positions[token]) * static_cast<double>(call.freqs[i]);
    const double scale = static_cast<double>(call.scale);
    float* out = call.out + token * call.n_rot;
    out[i] = static_cast<float>(::cos(angle) * scale);
    out[half + i] = static_cast<float>(::sin(angle) * scale);
  }
}

void rope(const RopeCall& call, Share share) {
  const uint32_t half = call.n_rot / 2;
  const Part heads = part_of(uint64_t{call.n_tokens} * call.n_heads, share, 1);
  for (uint64_t h = heads.begin; h < heads.end; ++h) {
    float* x = call.x + h * call.head_dim;
    const float* table = call.table + h / call.n_heads * call.n_rot;
    if (call.pairs) rotate_pairs(x, table, half);
    else rotate_halves(x, table, half);
  }
}

}  // namespace sluice::cpu::SLUICE_ISA
