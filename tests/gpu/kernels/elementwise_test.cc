#include <algorithm>

#include "core/dtype.h"
#include "tests/cpu/kernel_inputs.h"
#include "tests/gpu/kernels/device_data.h"

using namespace sluice;
using namespace sluice::gpu;
using namespace sluice::gpu::test;
using sluice::cpu::test::close;
using sluice::cpu::test::Random;

namespace {

constexpr float inf = INFINITY;

double activate(Activation activation, double x) {
  if (activation == Activation::silu) return x / (1 + std::exp(-x));
  const double u = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
  return 0.5 * x * (1 + std::tanh(u));
}

std::vector<float> gated(const std::vector<float>& gate, const std::vector<float>& up, Activation activation) {
  const DeviceArray<float> device_gate(gate), device_up(up);
  const auto cols = static_cast<uint32_t>(gate.size());
  return result_of(GatedActCall{device_gate.data(), device_up.data(), activation, 1, cols, nullptr}, gate.size());
}

std::vector<float> capped(const std::vector<float>& x, float cap) {
  const DeviceArray<float> device(x);
  run_call(SoftcapCall{device.data(), 1, static_cast<uint32_t>(x.size()), cap});
  return device.get();
}

}  // namespace

TEST_CASE("gpu gated_act: silu is within 1e-6 of double precision wherever it is normal") {
  std::vector<float> gate;
  for (float x = -87; x < 100; x += 0.0331f) gate.push_back(x);
  const std::vector<float> out = gated(gate, std::vector<float>(gate.size(), 1.0f), Activation::silu);
  for (size_t i = 0; i < gate.size(); ++i)
    REQUIRE(close(double{out[i]}, activate(Activation::silu, double{gate[i]}), 1e-6, 1e-42));
}

TEST_CASE("gpu gated_act: gelu is within 1e-6 of double precision, or 1e-7 of 1 in its flat tail") {
  Random random(5);
  const std::vector<float> gate = random.normals(5003, 3), up = random.normals(5003);
  const std::vector<float> out = gated(gate, up, Activation::gelu_tanh);
  for (size_t i = 0; i < gate.size(); ++i) {
    const double want = activate(Activation::gelu_tanh, double{gate[i]}) * double{up[i]};
    REQUIRE(close(double{out[i]}, want, 1e-6, 2e-7 * std::abs(double{gate[i]} * double{up[i]})));
  }
}

TEST_CASE("gpu gated_act: extreme and special values, and in place") {
  for (const Activation a : {Activation::silu, Activation::gelu_tanh}) {
    const std::vector<float> out = gated({0, -0.0f, 1e30f, -200, -95, NAN, 1e-40f}, std::vector<float>(7, 1.0f), a);
    CHECK(out[0] == 0);
    CHECK(out[1] == 0);
    CHECK(out[2] == 1e30f);
    CHECK(std::abs(out[3]) < 1e-37f);
    CHECK(std::abs(out[4]) < 1e-37f);
    CHECK(std::isnan(out[5]));
    CHECK(std::abs(out[6]) <= 1e-40f);
  }
  Random random(6);
  const std::vector<float> gate = random.normals(3 * 201, 5), up = random.normals(3 * 201);
  const DeviceArray<float> in_place(gate), device_up(up);
  run_call(GatedActCall{in_place.data(), device_up.data(), Activation::silu, 3, 201, in_place.data()});
  CHECK(same_bits(in_place.get(), gated(gate, up, Activation::silu)));
}

TEST_CASE(
    "gpu gated_act: some columns of rows that are apart, with the bits of the whole, and nothing between is written") {
  constexpr uint32_t rows = 4, stride = 701;
  Random random(7);
  const std::vector<float> gate = random.normals(size_t{rows} * stride, 5), up = random.normals(size_t{rows} * stride);
  const std::vector<float> want = gated(gate, up, Activation::silu);
  for (const auto& [first, cols] : {std::pair{0u, 16u}, {16u, 685u}, {1u, 300u}}) {
    const DeviceArray<float> out(gate), device_up(up);
    run_call(GatedActCall{out.data() + first, device_up.data() + first, Activation::silu, rows, cols,
                          out.data() + first, stride});
    const std::vector<float> got = out.get();
    for (size_t i = 0; i < got.size(); ++i) {
      const bool made = i % stride >= first && i % stride < first + cols;
      REQUIRE(got[i] == (made ? want[i] : gate[i]));
    }
  }
}

TEST_CASE("gpu softcap: within 1e-6 of double precision") {
  Random random(9);
  for (const float cap : {0.5f, 30.0f, 50.0f}) {
    std::vector<float> x = random.normals(2003, cap);
    x.insert(x.end(), {0.0f, -0.0f, 1e30f, -1e30f, inf, -inf, 1e-30f});
    const std::vector<float> out = capped(x, cap);
    for (size_t i = 0; i < x.size(); ++i)
      REQUIRE(close(double{out[i]}, double{cap} * std::tanh(double{x[i]} / double{cap}), 1e-6));
  }
}

TEST_CASE("gpu copy_rows: any order, repeats") {
  Random random(7);
  for (const uint32_t cols : {1u, 31u, 64u, 577u}) {
    const std::vector<float> x = random.normals(size_t{9} * cols);
    const std::vector<uint32_t> index = {8, 0, 3, 3, 5};
    const Table<uint32_t> table(index);
    const DeviceArray<float> device(x);
    const std::vector<float> out = result_of(CopyRowsCall{device.data(), table.data(), 5, cols, nullptr}, 5 * cols);
    for (size_t i = 0; i < out.size(); ++i) REQUIRE(out[i] == x[index[i / cols] * cols + i % cols]);
  }
}

TEST_CASE("gpu copy_rows: some columns of rows that are apart, and nothing between them is written") {
  Random random(9);
  const std::vector<uint32_t> index = {8, 0, 3, 3, 5};
  const Table<uint32_t> table(index);
  // Rows and places of whole vectors of four, and not.
  for (const auto& [stride, first, cols] :
       {std::tuple{96u, 16u, 80u}, {97u, 16u, 81u}, {96u, 3u, 64u}, {640u, 4u, 577u}}) {
    const std::vector<float> x = random.normals(size_t{9} * stride);
    const DeviceArray<float> device(x), out(std::vector<float>(index.size() * stride, -7.0f));
    run_call(CopyRowsCall{device.data() + first, table.data(), 5, cols, out.data() + first, stride});
    const std::vector<float> got = out.get();
    for (size_t i = 0; i < got.size(); ++i) {
      const size_t col = i % stride;
      const bool copied = col >= first && col < first + cols;
      REQUIRE(got[i] == (copied ? x[index[i / stride] * stride + col] : -7.0f));
    }
  }
}

TEST_CASE("gpu merge: weighted sums in slot order, replacing or accumulating") {
  Random random(8);
  for (int round = 0; round < 12; ++round) {
    const uint32_t tokens = random.pick(1, 5), k = random.pick(1, 8), cols = random.pick(1, 300);
    const bool accumulate = random.pick(0, 1) == 1;
    std::vector<std::vector<float>> parts;
    std::vector<DeviceArray<float>> device;
    std::vector<const float*> pointers;
    for (uint32_t i = 0; i < tokens * k; ++i) parts.push_back(random.normals(cols)), device.emplace_back(parts.back());
    for (const auto& part : device) pointers.push_back(part.data());
    const std::vector<float> weights = random.normals(size_t{tokens} * k);
    const std::vector<float> before = random.normals(size_t{tokens} * cols);
    const Table<const float*> table(pointers);
    const DeviceArray<float> device_weights(weights), out(before);
    run_call(MergeCall{table.data(), device_weights.data(), tokens, k, cols, accumulate, out.data()});
    const std::vector<float> got = out.get();
    for (size_t i = 0; i < got.size(); ++i) {
      const size_t t = i / cols;
      double want = accumulate ? double{before[i]} : 0, size = std::abs(want);
      for (size_t s = 0; s < k; ++s) {
        const double part = double{weights[t * k + s]} * double{parts[t * k + s][i % cols]};
        want += part;
        size += std::abs(part);
      }
      REQUIRE(close(double{got[i]}, want, 0, 5e-7 * size));
    }
  }
}

namespace {

std::vector<double> normed(const std::vector<float>& x, const std::vector<float>& weight, uint32_t cols, float eps,
                           bool weighted) {
  std::vector<double> want(x.begin(), x.end());
  for (size_t row = 0; row < x.size(); row += cols) {
    double squares = 0;
    for (size_t c = 0; c < cols; ++c) squares += want[row + c] * want[row + c];
    const double scale = 1 / std::sqrt(squares / cols + double{eps});
    for (size_t c = 0; c < cols; ++c) want[row + c] *= scale * (weighted ? double{weight[c]} : 1);
  }
  return want;
}

}  // namespace

TEST_CASE("gpu rms_norm: double precision within 1e-6, for odd widths, to a residual, in place, in any batch") {
  Random random(1);
  for (const uint32_t cols : {1u, 7u, 33u, 64u, 255u, 257u, 576u, 1000u, 8191u})
    for (const bool weighted : {true, false}) {
      const uint32_t rows = cols > 1000 ? 1 : 3;
      const float eps = random.one_of({0.0f, 1e-5f, 1e-6f});
      const std::vector<float> x = random.normals(size_t{rows} * cols, random.one_of({1e-3f, 1.0f, 300.0f}));
      const std::vector<float> weight = random.normals(cols), before = random.normals(x.size(), 10);
      const DeviceArray<float> device_x(x), device_weight(weight), residual(before), in_place(x);
      const RmsNormCall call{device_x.data(), weighted ? device_weight.data() : nullptr, eps, rows, cols, nullptr};
      const std::vector<float> out = result_of(call, x.size());
      const std::vector<double> want = normed(x, weight, cols, eps, weighted);
      for (size_t i = 0; i < out.size(); ++i) REQUIRE(close(double{out[i]}, want[i], 1e-6));

      RmsNormCall add = call;
      add.accumulate = true, add.out = residual.data();
      run_call(add);
      std::vector<float> sums = before;
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += out[i];
      CHECK(same_bits(residual.get(), sums));

      RmsNormCall one = call;
      one.n_rows = 1;
      for (uint32_t r = 0; r < rows; ++r) {
        one.x = one.out = in_place.data() + size_t{r} * cols;
        run_call(one);
      }
      CHECK(same_bits(in_place.get(), out));
    }
}

TEST_CASE("gpu rope: the table to the last bit but one; pairs and halves, and what is beyond n_rot") {
  Random random(4);
  for (int round = 0; round < 20; ++round) {
    const uint32_t head_dim = random.one_of({32u, 64u, 80u, 96u, 128u, 256u});
    const uint32_t n_rot = random.pick(0, 1) ? head_dim : head_dim / 2;
    const uint32_t tokens = random.pick(1, 6), heads = random.pick(1, 9);
    const bool pairs = random.pick(0, 1) == 1;
    const float scale = random.one_of({1.0f, 1.19f});
    std::vector<int32_t> positions;
    std::vector<float> freqs;
    for (uint32_t t = 0; t < tokens; ++t) positions.push_back(static_cast<int32_t>(random.pick(0, 131072)));
    for (uint32_t i = 0; i < n_rot / 2; ++i)
      freqs.push_back(static_cast<float>(std::pow(10000.0, -2.0 * i / static_cast<double>(n_rot))));
    const Table<int32_t> position_table(positions);
    const Table<float> freq_table(freqs);
    const DeviceArray<float> table(size_t{tokens} * n_rot);
    run_call(RopeTableCall{position_table.data(), freq_table.data(), tokens, n_rot, scale, table.data()});
    const std::vector<float> got = table.get();
    const std::vector<float> x = random.normals(size_t{tokens} * heads * head_dim);
    const DeviceArray<float> y(x);
    run_call(RopeCall{y.data(), table.data(), tokens, heads, head_dim, n_rot, pairs});
    const std::vector<float> rotated = y.get();
    for (size_t h = 0; h < size_t{tokens} * heads; ++h) {
      const float *before = &x[h * head_dim], *after = &rotated[h * head_dim];
      for (uint32_t i = 0; i < n_rot / 2; ++i) {
        const double angle = double{freqs[i]} * positions[h / heads];
        const double c = std::cos(angle) * double{scale}, s = std::sin(angle) * double{scale};
        REQUIRE(close(double{got[h / heads * n_rot + i]}, c, 6e-8));
        REQUIRE(close(double{got[h / heads * n_rot + n_rot / 2 + i]}, s, 6e-8));
        const uint32_t p = pairs ? 2 * i : i, q = pairs ? 2 * i + 1 : i + n_rot / 2;
        const double size = std::abs(double{before[p]}) + std::abs(double{before[q]});
        REQUIRE(close(double{after[p]}, double{before[p]} * c - double{before[q]} * s, 0, 2e-7 * size));
        REQUIRE(close(double{after[q]}, double{before[q]} * c + double{before[p]} * s, 0, 2e-7 * size));
      }
      for (uint32_t i = n_rot; i < head_dim; ++i) REQUIRE(after[i] == before[i]);
    }
  }
}
