#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "tests/cpu/reference.h"

using namespace sluice;
using namespace sluice::test;

namespace {

ExactBuffer quantize(cpu::Isa isa, const std::vector<float>& x, uint32_t rows, uint32_t cols, uint32_t shares = 1) {
  ExactBuffer out(rows * cpu::q8_row_bytes(cols));
  std::memset(out.data(), 0, out.size());
  const QuantizeCall call = {x.data(), ActFormat::q8, rows, cols, out.data()};
  for (uint32_t s = 0; s < shares; ++s) cpu::kernels(isa).quantize(call, {s, shares});
  return out;
}

struct Q8Block {
  const int8_t* q;
  float d;
  int16_t sums[2];
  float total;
};

Q8Block block_at(const ExactBuffer& rows, uint32_t cols, uint32_t row, uint32_t b) {
  const std::byte* at = rows.data() + row * cpu::q8_row_bytes(cols);
  Q8Block block;
  block.q = reinterpret_cast<const int8_t*>(at) + 32 * b;
  std::memcpy(&block.d, at + cpu::q8_scales_offset(cols) + 4 * b, 4);
  std::memcpy(block.sums, at + cpu::q8_sums_offset(cols) + 4 * b, 4);
  std::memcpy(&block.total, at + cpu::q8_totals_offset(cols) + 4 * b, 4);
  return block;
}

Q8Block quantize_one(cpu::Isa isa, const std::vector<float>& x, ExactBuffer& keep) {
  keep = quantize(isa, x, 1, 32);
  return block_at(keep, 32, 0, 0);
}

void check_block(const Q8Block& block, const float* x) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::abs(x[i]));
  CHECK(block.d == largest / 127.0f);
  int sums[2] = {0, 0};
  for (int i = 0; i < 32; ++i) {
    sums[i / 16] += block.q[i];
    REQUIRE(block.q[i] >= -127);
    REQUIRE(std::abs(x[i] - double(block.d) * block.q[i]) <= 0.50001 * block.d);
    if (std::abs(x[i]) == largest) CHECK(std::abs(block.q[i]) == 127);
  }
  CHECK(block.sums[0] == sums[0]);
  CHECK(block.sums[1] == sums[1]);
  CHECK(block.total == static_cast<float>(sums[0] + sums[1]));
}

}  // namespace

TEST_CASE("quantize: nearest values of every block, the same bits for all ISAs and shares") {
  Rng rng(1);
  for (const uint32_t rows : {1u, 3u, 7u})
    for (const uint32_t cols : {32u, 96u, 576u}) {
      std::vector<float> x = random_floats(size_t{rows} * cols, rng);
      for (size_t b = 0; b < x.size() / 32; ++b) {
        const auto size = static_cast<float>(std::pow(10.0, static_cast<int>(rng() % 60) - 30));
        for (size_t i = 0; i < 32; ++i) x[32 * b + i] *= size;
      }
      const ExactBuffer expected = quantize(cpu::Isa::scalar, x, rows, cols);
      for (uint32_t r = 0; r < rows; ++r)
        for (uint32_t b = 0; b < cols / 32; ++b)
          check_block(block_at(expected, cols, r, b), x.data() + size_t{r} * cols + 32 * b);
      for (const cpu::Isa isa : supported_isas())
        for (uint32_t shares = 1; shares <= 5; ++shares) {
          const ExactBuffer got = quantize(isa, x, rows, cols, shares);
          CHECK(std::memcmp(got.data(), expected.data(), got.size()) == 0);
        }
    }
}

TEST_CASE("quantize: ties go to the even value") {
  for (const cpu::Isa isa : supported_isas()) {
    std::vector<float> x(32);
    x[31] = -127;
    for (int i = 0; i < 31; ++i) x[i] = static_cast<float>(i) - 15.5f;
    ExactBuffer keep(0);
    const Q8Block block = quantize_one(isa, x, keep);
    CHECK(block.d == 1.0f);
    for (int i = 0; i < 31; ++i) CHECK(block.q[i] == std::nearbyint(x[i]));
  }
}

TEST_CASE("quantize: blocks of zeros, of tiny values and of what is no number") {
  const float tiny = std::numeric_limits<float>::denorm_min(), inf = std::numeric_limits<float>::infinity();
  for (const cpu::Isa isa : supported_isas()) {
    ExactBuffer keep(0);
    for (const float value : {0.0f, -0.0f, tiny, 1e-38f}) {
      std::vector<float> x(32, value);
      const Q8Block block = quantize_one(isa, x, keep);
      CHECK(block.d == 0.0f);
      for (int i = 0; i < 32; ++i) CHECK(block.q[i] == 0);
      CHECK(block.sums[0] == 0);
      CHECK(block.sums[1] == 0);
    }
    for (const float value : {inf, -inf, std::nanf("")}) {
      std::vector<float> x(32, 1.0f);
      x[17] = value;
      const Q8Block block = quantize_one(isa, x, keep);
      CHECK(std::isnan(block.d));
      for (int i = 0; i < 32; ++i) CHECK(block.q[i] == 0);
    }
    const std::vector<float> huge(32, -std::numeric_limits<float>::max());
    const Q8Block block = quantize_one(isa, huge, keep);
    CHECK(block.q[5] == -127);
    CHECK(block.sums[1] == -127 * 16);
  }
}

TEST_CASE("quantize: f32 rows are copied") {
  Rng rng(2);
  const std::vector<float> x = random_floats(5 * 37, rng);
  for (const cpu::Isa isa : supported_isas()) {
    std::vector<float> out(x.size());
    for (uint32_t s = 0; s < 3; ++s)
      cpu::kernels(isa).quantize({x.data(), ActFormat::f32, 5, 37, reinterpret_cast<std::byte*>(out.data())}, {s, 3});
    CHECK(out == x);
  }
}
