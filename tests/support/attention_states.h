// States of attention (m, l, O of each row) as two devices leave them, and what they are together.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/cpu/kernel_inputs.h"

namespace sluice::testing {

struct AttentionStates {
  uint32_t n_rows, head_dim;
  std::vector<float> a, b;
};

inline AttentionStates random_states(cpu::test::Random& random, uint32_t n_rows, uint32_t head_dim) {
  AttentionStates s{n_rows, head_dim, {}, {}};
  for (std::vector<float>* state : {&s.a, &s.b}) {
    *state = random.normals(size_t{n_rows} * (head_dim + 2), 2);
    for (uint32_t r = 0; r < n_rows; ++r) {
      float* row = &(*state)[size_t{r} * (head_dim + 2)];
      row[0] *= 10;
      row[1] = 1 + std::abs(row[1]);
    }
  }
  return s;
}

inline void see_nothing(std::vector<float>& state, uint32_t row, uint32_t head_dim) {
  float* at = &state[size_t{row} * (head_dim + 2)];
  at[0] = -INFINITY;
  std::fill_n(at + 1, head_dim + 1, 0.0f);
}

// Three rows: of the first only a saw something, of the second only b, of the third neither.
inline AttentionStates one_sided_states(cpu::test::Random& random) {
  AttentionStates s = random_states(random, 3, 20);
  see_nothing(s.b, 0, s.head_dim), see_nothing(s.a, 1, s.head_dim);
  see_nothing(s.a, 2, s.head_dim), see_nothing(s.b, 2, s.head_dim);
  return s;
}
inline std::vector<float> merged_one_sided(const AttentionStates& s) {
  std::vector<float> out(size_t{3} * s.head_dim);
  for (uint32_t d = 0; d < s.head_dim; ++d) {
    out[d] = s.a[2 + d] / s.a[1];
    out[s.head_dim + d] = s.b[s.head_dim + 2 + 2 + d] / s.b[s.head_dim + 2 + 1];
  }
  return out;
}

inline std::vector<double> merged_in_double(const AttentionStates& s) {
  std::vector<double> out;
  for (uint32_t r = 0; r < s.n_rows; ++r) {
    const float *a = &s.a[size_t{r} * (s.head_dim + 2)], *b = &s.b[size_t{r} * (s.head_dim + 2)];
    const double m = std::max(a[0], b[0]), scale_a = std::exp(a[0] - m), scale_b = std::exp(b[0] - m);
    const double l = a[1] * scale_a + b[1] * scale_b;
    for (uint32_t d = 0; d < s.head_dim; ++d) out.push_back((a[2 + d] * scale_a + b[2 + d] * scale_b) / l);
  }
  return out;
}

}  // namespace sluice::testing
