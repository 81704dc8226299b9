#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "tests/cpu/reference.h"

using namespace sluice;
using namespace sluice::test;

namespace {

struct Kind {
  DType type;
  ActFormat format;
};
constexpr Kind kinds[] = {{DType::f32, ActFormat::f32},  {DType::f16, ActFormat::f32},  {DType::bf16, ActFormat::f32},
                          {DType::q4_0, ActFormat::f32}, {DType::q4_1, ActFormat::f32}, {DType::q5_0, ActFormat::f32},
                          {DType::q5_1, ActFormat::f32}, {DType::q8_0, ActFormat::f32}, {DType::q4_k, ActFormat::f32},
                          {DType::q6_k, ActFormat::f32}, {DType::q4_0, ActFormat::q8},  {DType::q4_1, ActFormat::q8},
                          {DType::q5_0, ActFormat::q8},  {DType::q5_1, ActFormat::q8},  {DType::q8_0, ActFormat::q8},
                          {DType::q4_k, ActFormat::q8},  {DType::q6_k, ActFormat::q8}};

uint64_t x_row_bytes(ActFormat format, uint32_t cols) {
  return format == ActFormat::q8 ? cpu::q8_row_bytes(cols) : uint64_t{cols} * 4;
}

// Random weights and activations of one product; both end with their allocations.
struct Product {
  Kind kind;
  uint32_t rows, cols, tokens;
  ExactBuffer weights, x;

  Product(Kind k, uint32_t n_rows, uint32_t n_cols, uint32_t n_tokens, Rng& rng, bool extreme = false)
      : kind(k),
        rows(n_rows),
        cols(n_cols),
        tokens(n_tokens),
        weights(n_rows * row_bytes(k.type, n_cols), rng() % 16),
        x(n_tokens * x_row_bytes(k.format, n_cols)) {
    random_weights(k.type, uint64_t{rows} * cols, rng, weights.data(), extreme);
    std::vector<float> values = random_floats(size_t{tokens} * cols, rng);
    if (extreme)
      for (float& f : values) f = f < 0 ? -1.0f : 1.0f;
    std::memset(x.data(), 0, x.size());
    cpu::kernels(cpu::Isa::scalar).quantize({values.data(), kind.format, tokens, cols, x.data()}, {});
  }

  MatmulCall call(float* out) const {
    return {weights.data(), kind.type, rows, cols, x.data(), kind.format, tokens, out, rows, nullptr, false};
  }

  std::vector<double> activations(uint32_t t) const {
    const std::byte* at = x.data() + t * x_row_bytes(kind.format, cols);
    std::vector<double> values(cols);
    for (uint32_t c = 0; c < cols; ++c) {
      float f;
      if (kind.format == ActFormat::f32) {
        std::memcpy(&f, at + size_t{4} * c, 4);
        values[c] = f;
      } else {
        std::memcpy(&f, at + cpu::q8_scales_offset(cols) + size_t{4} * (c / 32), 4);
        values[c] = double{f} * static_cast<int8_t>(at[c]);
      }
    }
    return values;
  }
};

using Outputs = std::vector<float>;

Outputs run(const Product& p, cpu::Isa isa, uint32_t shares = 1) {
  Outputs out(size_t{p.tokens} * p.rows, std::nanf(""));
  for (uint32_t s = 0; s < shares; ++s) cpu::kernels(isa).matmul(p.call(out.data()), {s, shares});
  return out;
}

bool same_bits(const Outputs& a, const Outputs& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

// Relative to the sum of |terms|: an fma for every block of 32 columns (f32: for every 16, then four
// additions and the rounding of the weight), and three roundings within a block.
double error_bound(const Product& p) {
  const double steps = p.kind.format == ActFormat::q8 ? p.cols / 32.0 + 3 : std::ceil(p.cols / 16.0) + 5;
  return std::min(1e-5, steps * 0x1.01p-24);
}

void check_against_double(const Product& p, const Outputs& out) {
  std::vector<std::vector<double>> x;
  for (uint32_t t = 0; t < p.tokens; ++t) x.push_back(p.activations(t));
  for (uint32_t r = 0; r < p.rows; ++r) {
    const std::vector<Weight> w = decode(p.kind.type, p.weights.data() + r * row_bytes(p.kind.type, p.cols), p.cols);
    for (uint32_t t = 0; t < p.tokens; ++t) {
      double sum = 0, size = 0;
      for (uint32_t c = 0; c < p.cols; ++c) {
        sum += w[c].value() * x[t][c];
        size += (std::abs(w[c].product) + std::abs(w[c].minimum)) * std::abs(x[t][c]);
      }
      REQUIRE(std::abs(out[size_t{t} * p.rows + r] - sum) <= error_bound(p) * size);
    }
  }
}

uint32_t random_cols(Kind kind, Rng& rng) {
  const uint32_t block = info(kind.type).block_elements;
  if (block == 1) return 1 + rng() % 700;
  return block * (1 + rng() % (block == 32 ? 40 : 3));
}

constexpr uint32_t row_counts[] = {1, 4, 15, 16, 17, 31, 33, 101};

}  // namespace

TEST_CASE("matmul: every type, format and ISA over random shapes, against double precision") {
  Rng rng(10);
  for (const Kind kind : kinds) {
    CAPTURE(info(kind.type).name);
    CAPTURE(static_cast<int>(kind.format));
    for (const uint32_t rows : row_counts) {
      const uint32_t cols = rows == 16 ? info(kind.type).block_elements : random_cols(kind, rng);
      const Product p(kind, rows, cols, rng() % 4 == 0 ? 33 : 1 + rng() % 17, rng, rng() % 4 == 0);
      CAPTURE(rows);
      CAPTURE(cols);
      CAPTURE(p.tokens);
      const Outputs expected = run(p, cpu::Isa::scalar);
      check_against_double(p, expected);
      for (const cpu::Isa isa : supported_isas()) CHECK(same_bits(run(p, isa), expected));
    }
  }
}

TEST_CASE("matmul: the largest weights and activations do not overflow") {
  Rng rng(11);
  for (const Kind kind : kinds) {
    CAPTURE(info(kind.type).name);
    for (const uint8_t fill : {0x00, 0x80, 0xff, 0x7f, 0x81}) {
      Product p(kind, 17, 256, 2, rng, true);
      if (info(kind.type).block_elements > 1) {
        const ExactBuffer scales(p.weights.size());
        std::memcpy(scales.data(), p.weights.data(), scales.size());
        std::memset(p.weights.data(), fill, p.weights.size());
        const uint32_t bytes = info(kind.type).block_bytes, at = kind.type == DType::q6_k ? 208 : 0;
        const uint32_t n = has_minimum(kind.type) ? 4 : 2;
        for (size_t b = 0; b < p.weights.size(); b += bytes)
          std::memcpy(p.weights.data() + b + at, scales.data() + b + at, n);
      }
      for (const cpu::Isa isa : supported_isas()) check_against_double(p, run(p, isa));
    }
  }
}

TEST_CASE("matmul: a token's bits do not depend on its company") {
  Rng rng(12);
  for (const Kind kind : kinds) {
    CAPTURE(info(kind.type).name);
    CAPTURE(static_cast<int>(kind.format));
    const Product p(kind, 37, random_cols(kind, rng), 70, rng);
    for (const cpu::Isa isa : supported_isas()) {
      const Outputs all = run(p, isa);
      for (uint32_t n = 1; n <= 33; n = n == 17 ? 33 : n + 1) {
        const uint32_t first = rng() % (p.tokens - n + 1);
        Outputs some(size_t{n} * p.rows);
        MatmulCall call = p.call(some.data());
        call.x += first * x_row_bytes(kind.format, p.cols);
        call.n_tokens = n;
        cpu::kernels(isa).matmul(call, {});
        CHECK(std::memcmp(some.data(), all.data() + size_t{first} * p.rows, some.size() * 4) == 0);
      }
    }
  }
}

TEST_CASE("matmul: shares and row tiles do not change the bits") {
  Rng rng(13);
  for (const Kind kind : kinds) {
    CAPTURE(info(kind.type).name);
    CAPTURE(static_cast<int>(kind.format));
    for (const uint32_t tokens : {1u, 3u, 12u}) {
      const Product p(kind, 5 + rng() % 120, random_cols(kind, rng), tokens, rng);
      for (const cpu::Isa isa : supported_isas()) {
        const Outputs whole = run(p, isa);
        for (uint32_t shares = 2; shares <= 5; ++shares) CHECK(same_bits(run(p, isa, shares), whole));
        Outputs cut(whole.size(), std::nanf(""));
        for (uint32_t row = 0; row < p.rows;) {
          MatmulCall call = p.call(cut.data() + row);
          call.weights += row * row_bytes(kind.type, p.cols);
          call.rows = std::min<uint32_t>(1 + rng() % 40, p.rows - row);
          call.out_stride = p.rows;
          cpu::kernels(isa).matmul(call, {});
          row += call.rows;
        }
        CHECK(same_bits(cut, whole));
      }
    }
  }
}

TEST_CASE("matmul: bias, accumulation and a wide output") {
  Rng rng(14);
  for (const Kind kind : kinds) {
    CAPTURE(info(kind.type).name);
    for (const uint32_t rows : {3u, 16u, 35u}) {
      const Product p(kind, rows, random_cols(kind, rng), 1 + rng() % 10, rng);
      const uint32_t stride = rows + 1 + rng() % 20;
      const std::vector<float> bias = random_floats(rows, rng, 100);
      const std::vector<float> before = random_floats(size_t{p.tokens - 1} * stride + rows, rng, 100);
      for (const cpu::Isa isa : supported_isas())
        for (int mode = 0; mode < 4; ++mode) {
          const bool with_bias = mode % 2 != 0, accumulate = mode / 2 != 0;
          std::vector<float> out = before, expected = before;
          const Outputs product = run(p, isa);
          for (uint32_t t = 0; t < p.tokens; ++t)
            for (uint32_t r = 0; r < rows; ++r) {
              float value = product[size_t{t} * rows + r];
              if (with_bias) value += bias[r];
              float& at = expected[size_t{t} * stride + r];
              at = accumulate ? at + value : value;
            }
          MatmulCall call = p.call(out.data());
          call.out_stride = stride;
          call.bias = with_bias ? bias.data() : nullptr;
          call.accumulate = accumulate;
          for (uint32_t s = 0; s < 2; ++s) cpu::kernels(isa).matmul(call, {s, 2});
          CHECK(same_bits(out, expected));
        }
    }
  }
}
