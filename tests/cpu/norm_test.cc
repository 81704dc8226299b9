#include <doctest/doctest.h>

#include "tests/cpu/kernel_inputs.h"

using namespace sluice;
using namespace sluice::cpu;
using namespace sluice::cpu::test;

namespace {

struct Norm {
  uint32_t rows, cols;
  float eps;
  std::vector<float> x, weight;

  RmsNormCall call(float* out, bool weighted = true) const {
    return {x.data(), weighted ? weight.data() : nullptr, eps, rows, cols, out};
  }
  std::vector<double> expected(bool weighted) const {
    std::vector<double> want(x.begin(), x.end());
    for (uint32_t r = 0; r < rows; ++r) {
      double* row = &want[size_t{r} * cols];
      double squares = 0;
      for (uint32_t c = 0; c < cols; ++c) squares += row[c] * row[c];
      for (uint32_t c = 0; c < cols; ++c)
        row[c] *= (weighted ? double{weight[c]} : 1) / std::sqrt(squares / cols + double{eps});
    }
    return want;
  }
};

Norm make(Random& random, uint32_t rows, uint32_t cols) {
  const float scale = random.one_of({1e-3f, 1.0f, 300.0f});
  return {rows, cols, random.one_of({0.0f, 1e-5f, 1e-6f}), random.normals(size_t{rows} * cols, scale),
          random.normals(cols)};
}

}  // namespace

TEST_CASE("rms_norm: double precision within 1e-6, on every ISA, for odd widths") {
  Random random(1);
  for (const Isa isa : supported_isas())
    for (const uint32_t cols : {1u, 7u, 16u, 33u, 64u, 100u, 576u, 1000u, 4096u, 8191u})
      for (const bool weighted : {true, false}) {
        const Norm norm = make(random, random.pick(1, 5), cols);
        std::vector<float> out(norm.x.size());
        run_in_shares(isa, norm.call(out.data(), weighted), 1);
        const std::vector<double> want = norm.expected(weighted);
        size_t wrong = 0;
        for (size_t i = 0; i < out.size(); ++i) wrong += !close(double{out[i]}, want[i], 1e-6);
        CHECK_MESSAGE(wrong == 0, "cols ", cols);
      }
}

TEST_CASE("rms_norm: adds to a residual") {
  Random random(3);
  for (const uint32_t cols : {3u, 64u, 577u})
    for (const bool weighted : {true, false}) {
      const Norm norm = make(random, 4, cols);
      const std::vector<float> before = random.normals(norm.x.size(), 10);
      std::vector<float> normed(norm.x.size());
      run_in_shares(Isa::scalar, norm.call(normed.data(), weighted), 1);
      for (const Isa isa : supported_isas())
        for (const uint32_t shares : {1u, 3u}) {
          std::vector<float> out = before;
          RmsNormCall call = norm.call(out.data(), weighted);
          call.accumulate = true;
          run_in_shares(isa, call, shares);
          std::vector<float> want = before;
          for (size_t i = 0; i < want.size(); ++i) want[i] += normed[i];
          CHECK(same_bits(out, want));
        }
    }
}

TEST_CASE("rms_norm: the same bits on every ISA, in any batch, in any shares, in place") {
  Random random(2);
  for (const uint32_t cols : {5u, 48u, 577u}) {
    const Norm norm = make(random, 7, cols);
    std::vector<float> want(norm.x.size());
    run_in_shares(Isa::scalar, norm.call(want.data()), 1);
    for (const Isa isa : supported_isas()) {
      for (uint32_t shares = 1; shares <= 5; ++shares) {
        std::vector<float> out(norm.x.size());
        run_in_shares(isa, norm.call(out.data()), shares);
        CHECK(same_bits(out, want));
      }
      std::vector<float> in_place = norm.x;
      for (uint32_t r = 0; r < norm.rows; ++r) {
        float* row = in_place.data() + size_t{r} * cols;
        run_in_shares(isa, RmsNormCall{row, norm.weight.data(), norm.eps, 1, cols, row}, 1);
      }
      CHECK(same_bits(in_place, want));
    }
  }
}
