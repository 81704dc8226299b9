#include <doctest/doctest.h>

#include "tests/cpu/kernel_inputs.h"

using namespace sluice;
using namespace sluice::cpu;
using namespace sluice::cpu::test;

namespace {

struct Angles {
  uint32_t n_rot;
  std::vector<int32_t> positions;
  std::vector<float> freqs;
  float scale;

  RopeTableCall call(float* out) const {
    return {positions.data(), freqs.data(), static_cast<uint32_t>(positions.size()), n_rot, scale, out};
  }
  double angle(size_t token, size_t pair) const { return double{freqs[pair]} * positions[token]; }
};

Angles make_angles(Random& random, uint32_t tokens, uint32_t n_rot) {
  Angles a{n_rot, {}, {}, random.one_of({1.0f, 1.19f})};
  for (uint32_t t = 0; t < tokens; ++t) a.positions.push_back(static_cast<int32_t>(random.pick(0, 131072)));
  for (uint32_t i = 0; i < n_rot / 2; ++i)
    a.freqs.push_back(static_cast<float>(std::pow(10000.0, -2.0 * i / static_cast<double>(n_rot))));
  return a;
}

}  // namespace

TEST_CASE("rope_table: cosines and sines of angles up to 131072, to the last bit but one") {
  Random random(3);
  for (const Isa isa : supported_isas())
    for (const uint32_t n_rot : {2u, 32u, 64u, 80u, 128u}) {
      const Angles a = make_angles(random, random.pick(1, 9), n_rot);
      std::vector<float> out(a.positions.size() * n_rot);
      run_in_shares(isa, a.call(out.data()), random.pick(1, 5));
      for (size_t t = 0; t < a.positions.size(); ++t)
        for (size_t i = 0; i < n_rot / 2; ++i) {
          const double c = std::cos(a.angle(t, i)) * double{a.scale}, s = std::sin(a.angle(t, i)) * double{a.scale};
          REQUIRE(close(double{out[t * n_rot + i]}, c, 6e-8));
          REQUIRE(close(double{out[t * n_rot + n_rot / 2 + i]}, s, 6e-8));
        }
    }
}

TEST_CASE("rope: rotates pairs and halves, leaves what is beyond n_rot, same bits everywhere") {
  Random random(4);
  for (int round = 0; round < 40; ++round) {
    const uint32_t head_dim = random.one_of({32u, 64u, 80u, 96u, 128u, 256u});
    const uint32_t n_rot = random.pick(0, 1) ? head_dim : head_dim / 2;
    const uint32_t tokens = random.pick(1, 6), heads = random.pick(1, 9);
    const bool pairs = random.pick(0, 1) == 1;
    const Angles a = make_angles(random, tokens, n_rot);
    std::vector<float> table(size_t{tokens} * n_rot);
    run_in_shares(Isa::scalar, a.call(table.data()), 1);
    const std::vector<float> x = random.normals(size_t{tokens} * heads * head_dim);

    std::vector<float> first;
    for (const Isa isa : supported_isas())
      for (uint32_t shares = 1; shares <= 5; ++shares) {
        std::vector<float> y = x;
        run_in_shares(isa, RopeCall{y.data(), table.data(), tokens, heads, head_dim, n_rot, pairs}, shares);
        if (first.empty()) first = y;
        REQUIRE(same_bits(y, first));
      }

    for (size_t h = 0; h < size_t{tokens} * heads; ++h) {
      const float* before = &x[h * head_dim];
      const float* after = &first[h * head_dim];
      for (uint32_t i = 0; i < n_rot / 2; ++i) {
        const uint32_t p = pairs ? 2 * i : i, q = pairs ? 2 * i + 1 : i + n_rot / 2;
        const double c = std::cos(a.angle(h / heads, i)) * double{a.scale};
        const double s = std::sin(a.angle(h / heads, i)) * double{a.scale};
        const double size = std::abs(double{before[p]}) + std::abs(double{before[q]});
        REQUIRE(close(double{after[p]}, double{before[p]} * c - double{before[q]} * s, 0, 2e-7 * size));
        REQUIRE(close(double{after[q]}, double{before[q]} * c + double{before[p]} * s, 0, 2e-7 * size));
      }
      for (uint32_t i = n_rot; i < head_dim; ++i) REQUIRE(after[i] == before[i]);
    }
  }
}
