#include <limits>

#include "tests/cpu/reference.h"
#include "tests/gpu/kernels/q8_data.h"

using namespace sluice;
using namespace sluice::gpu;
using namespace sluice::gpu::test;
using sluice::test::random_floats;
using sluice::test::Rng;

namespace {

Q8Rows quantize(const std::vector<float>& x, uint32_t rows, uint32_t cols) {
  return {cols, quantized(x, rows, cols).get()};
}

void check_block(const Q8Rows& rows, uint32_t r, uint32_t b, const float* x) {
  float largest = 0;
  for (uint32_t i = 0; i < 32; ++i) largest = std::max(largest, std::abs(x[i]));
  const Q8Scale block = rows.block(r, b);
  CHECK(block.scale == largest / 127.0f);
  int sum = 0;
  for (uint32_t i = 0; i < 32; ++i) {
    const int q = rows.byte(r, 32 * b + i);
    sum += q;
    REQUIRE(q >= -127);
    REQUIRE(std::abs(double{x[i]} - double{block.scale} * q) <= 0.50001 * double{block.scale});
    if (std::abs(x[i]) == largest) CHECK(std::abs(q) == 127);
    REQUIRE(rows.bf16(r, 32 * b + i) == bf16_to_float(float_to_bf16(x[i])));
  }
  CHECK(block.sum == static_cast<float>(sum));
}

}  // namespace

TEST_CASE("gpu quantize: nearest values of every block, their sum, and bf16 beside them") {
  Rng rng(1);
  for (const uint32_t rows : {1u, 3u, 7u})
    for (const uint32_t cols : {32u, 96u, 576u}) {
      std::vector<float> x = random_floats(size_t{rows} * cols, rng);
      for (size_t b = 0; b < x.size() / 32; ++b) {
        const auto size = static_cast<float>(std::pow(10.0, static_cast<int>(rng() % 60) - 30));
        for (size_t i = 0; i < 32; ++i) x[32 * b + i] *= size;
      }
      const Q8Rows got = quantize(x, rows, cols);
      for (uint32_t r = 0; r < rows; ++r)
        for (uint32_t b = 0; b < cols / 32; ++b) check_block(got, r, b, x.data() + size_t{r} * cols + 32 * b);
    }
}

TEST_CASE("gpu quantize: ties go to the even value") {
  std::vector<float> x(32);
  x[31] = -127;
  for (int i = 0; i < 31; ++i) x[static_cast<size_t>(i)] = static_cast<float>(i) - 15.5f;
  const Q8Rows got = quantize(x, 1, 32);
  CHECK(got.block(0, 0).scale == 1.0f);
  for (uint32_t i = 0; i < 31; ++i) CHECK(static_cast<float>(got.byte(0, i)) == std::nearbyint(x[i]));
}

TEST_CASE("gpu quantize: blocks of zeros, of tiny values and of what is no number") {
  const float tiny = std::numeric_limits<float>::denorm_min(), inf = std::numeric_limits<float>::infinity();
  for (const float value : {0.0f, -0.0f, tiny, 1e-38f}) {
    const Q8Rows got = quantize(std::vector<float>(32, value), 1, 32);
    CHECK(got.block(0, 0).scale == 0.0f);
    CHECK(got.block(0, 0).sum == 0.0f);
    for (uint32_t i = 0; i < 32; ++i) CHECK(got.byte(0, i) == 0);
  }
  for (const float value : {inf, -inf, std::nanf("")}) {
    std::vector<float> x(64, 1.0f);
    x[17] = value;
    const Q8Rows got = quantize(x, 1, 64);
    CHECK(std::isnan(got.block(0, 0).scale));
    CHECK(!std::isfinite(got.bf16(0, 17)));
    for (uint32_t i = 0; i < 32; ++i) CHECK(got.byte(0, i) == 0);
    CHECK(got.byte(0, 40) == 127);
  }
  const Q8Rows huge = quantize(std::vector<float>(32, -std::numeric_limits<float>::max()), 1, 32);
  CHECK(huge.byte(0, 5) == -127);
  CHECK(huge.block(0, 0).sum == -127 * 32);
}

TEST_CASE("gpu quantize: f32 rows are copied") {
  Rng rng(2);
  const std::vector<float> x = random_floats(5 * 37, rng);
  const DeviceArray<float> from(x), out(x.size());
  run_call(QuantizeCall{from.data(), ActFormat::f32, 5, 37, reinterpret_cast<std::byte*>(out.data())});
  CHECK(out.get() == x);
}

TEST_CASE("gpu act_format: q8 where weights are quantized, f32 elsewhere and for the reference") {
  for (const DType type : {DType::q4_0, DType::q8_0, DType::q4_k, DType::q6_k}) {
    CHECK(act_format(type, Compute::fast) == ActFormat::q8);
    CHECK(act_format(type, Compute::f32) == ActFormat::f32);
  }
  for (const DType type : {DType::f32, DType::f16, DType::bf16})
    CHECK(act_format(type, Compute::fast) == ActFormat::f32);
  CHECK(act_row_bytes(ActFormat::f32, 577) == 577 * 4);
  for (uint32_t cols = 32; cols < 1000; cols += 32) {
    CHECK(act_row_bytes(ActFormat::q8, cols) % 64 == 0);
    CHECK(act_row_bytes(ActFormat::q8, cols) >= cols * 3 + cols / 4);
  }
}
