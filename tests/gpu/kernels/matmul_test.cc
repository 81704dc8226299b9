#include <algorithm>

#include "gpu/dense_product.h"
#include "tests/cpu/reference.h"
#include "tests/gpu/kernels/q8_data.h"

using namespace sluice;
using namespace sluice::gpu;
using namespace sluice::gpu::test;
using sluice::test::decode;
using sluice::test::random_floats;
using sluice::test::random_weights;
using sluice::test::Rng;
using sluice::test::Weight;

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

std::vector<std::byte> weights_of(Kind kind, uint64_t n, Rng& rng, bool extreme) {
  std::vector<std::byte> bytes(row_bytes(kind.type, n));
  random_weights(kind.type, n, rng, bytes.data(), extreme);
  return bytes;
}

// Random weights and activations of one product.
struct Product {
  Kind kind;
  uint32_t rows, cols, tokens;
  std::vector<std::byte> host_weights;
  std::vector<float> host_x;
  DeviceArray<std::byte> weights, x;

  Product(Kind k, uint32_t n_rows, uint32_t n_cols, uint32_t n_tokens, Rng& rng, bool extreme = false)
      : kind(k),
        rows(n_rows),
        cols(n_cols),
        tokens(n_tokens),
        host_weights(weights_of(k, uint64_t{n_rows} * n_cols, rng, extreme)),
        host_x(random_floats(size_t{n_tokens} * n_cols, rng)),
        weights(host_weights, rng() % 2 == 0         ? 0
                              : k.type == DType::f32 ? rng() % 4 * 4
                                                     : rng() % 8 * 2),
        x(activations(extreme)) {}

  DeviceArray<std::byte> activations(bool extreme) {
    if (extreme)
      for (float& f : host_x) f = f < 0 ? -1.0f : 1.0f;
    if (kind.format == ActFormat::q8) return quantized(host_x, tokens, cols);
    return DeviceArray<std::byte>(std::as_bytes(std::span<const float>(host_x)));
  }
  MatmulCall call(float* out) const {
    return {weights.data(), kind.type, rows, cols, x.data(), kind.format, tokens, out, rows, nullptr, false};
  }
  // Of `n` tokens from `first` on.
  MatmulCall some(uint32_t first, uint32_t n, float* out) const {
    MatmulCall call_of_some = call(out);
    call_of_some.x += first * act_row_bytes(kind.format, cols);
    call_of_some.n_tokens = n;
    return call_of_some;
  }
  bool on_tensor_cores() const { return kind.format == ActFormat::q8 && tokens > decode_tokens; }

  // The numbers that the kernel multiplies with, tokens x cols.
  std::vector<double> multiplied() const {
    std::vector<double> values(host_x.begin(), host_x.end());
    if (kind.format == ActFormat::f32) return values;
    const Q8Rows q8{cols, x.get()};
    for (uint32_t t = 0; t < tokens; ++t)
      for (uint32_t c = 0; c < cols; ++c)
        values[size_t{t} * cols + c] = on_tensor_cores() ? double{q8.bf16(t, c)} : q8.value(t, c);
    return values;
  }
};

std::vector<float> run_product(const Product& p) {
  const DeviceArray<float> out(size_t{p.tokens} * p.rows);
  run_call(p.call(out.data()));
  return out.get();
}

// Relative to the sum of |terms|. f32: a lane adds cols / 32 values, then five additions. 8 bits: a sum takes two to
// four exact dot products of each fourth chunk of 256 columns with three roundings, then five additions. Prompts:
// weights are rounded to bf16; sums in f32, of which hardware may truncate.
double error_bound(const Product& p) {
  if (p.on_tensor_cores()) return 0x1.02p-9 + p.cols * 0x1p-23;
  const double steps =
      p.kind.format == ActFormat::q8 ? 3 * std::ceil(p.cols / 1024.0) * 4 + 6 : 16 * std::ceil(p.cols / 512.0) + 6;
  return steps * 0x1.01p-24;
}

void check_against_double(const Product& p, const std::vector<float>& out) {
  const std::vector<double> x = p.multiplied();
  const double bound = error_bound(p);
  for (uint32_t r = 0; r < p.rows; ++r) {
    const std::vector<Weight> w =
        decode(p.kind.type, p.host_weights.data() + r * row_bytes(p.kind.type, p.cols), p.cols);
    for (uint32_t t = 0; t < p.tokens; ++t) {
      double sum = 0, size = 0;
      for (uint32_t c = 0; c < p.cols; ++c) {
        const double activation = x[size_t{t} * p.cols + c];
        sum += w[c].value() * activation;
        size += (std::abs(w[c].product) + std::abs(w[c].minimum)) * std::abs(activation);
      }
      REQUIRE(std::abs(double{out[size_t{t} * p.rows + r]} - sum) <= bound * size);
    }
  }
}

uint32_t random_cols(Kind kind, Rng& rng) {
  const uint32_t block = info(kind.type).block_elements;
  if (block == 1) return 1 + rng() % 700;
  return block * (1 + rng() % (block == 32 ? 40 : 3));
}

}  // namespace

TEST_CASE("gpu matmul: every type and format over random shapes, against double precision") {
  Rng rng(10);
  for (const Kind kind : kinds) {
    CAPTURE(info(kind.type).name);
    CAPTURE(static_cast<int>(kind.format));
    for (const uint32_t rows : {1u, 4u, 16u, 33u}) {
      const uint32_t cols = rows == 16 ? info(kind.type).block_elements : random_cols(kind, rng);
      const uint32_t tokens = rows == 33 ? 1 : 1 + rng() % 16;
      CAPTURE(rows);
      CAPTURE(cols);
      CAPTURE(tokens);
      const Product p(kind, rows, cols, tokens, rng, rng() % 4 == 0);
      check_against_double(p, run_product(p));
    }
  }
}

TEST_CASE("gpu matmul: prompts of every type and format, against double precision") {
  Rng rng(11);
  for (const Kind kind : kinds) {
    CAPTURE(info(kind.type).name);
    CAPTURE(static_cast<int>(kind.format));
    for (const uint32_t tokens : {17u, 33u, 130u}) {
      if (tokens == 130 && kind.format == ActFormat::f32) continue;
      const Product p(kind, tokens == 33 ? 70 : 5, random_cols(kind, rng), tokens, rng, tokens == 17);
      CAPTURE(p.cols);
      CAPTURE(p.tokens);
      check_against_double(p, run_product(p));
    }
  }
}

TEST_CASE("gpu matmul: rows that are copied whole have the bits of rows that come in pieces") {
  if (!can_transfer()) return;
  Rng rng(17);
  constexpr uint32_t span = 2048;
  for (const Kind kind : kinds) {
    if (kind.format != ActFormat::q8) continue;
    CAPTURE(info(kind.type).name);
    // Rows that are multiples of 16 bytes, and others; of spans, parts of them, and so long that more warps share them.
    for (const uint32_t cols : {span, 2 * span + 1024, 256u, span / 2 + 32, 8192 + span})
      for (const uint32_t tokens : {1u, 3u, 16u}) {
        if (cols % info(kind.type).block_elements != 0) continue;
        const uint32_t rows = cols > 8192 ? 17 : 16 + rng() % 40;
        CAPTURE(cols);
        CAPTURE(rows);
        CAPTURE(tokens);
        const Product p(kind, rows, cols, tokens, rng);
        const auto with = [&](bool transfers, uint32_t n_sms) {
          KernelContext context{n_sms, nullptr, 0};
          context.transfers = transfers;
          const DeviceArray<float> out(size_t{tokens} * rows);
          run_call(p.call(out.data()), context);
          return out.get();
        };
        const auto want = with(false, 8);
        CHECK(same_bits(with(true, 8), want));
        CHECK(same_bits(with(true, 1), want));  // blocks have several tiles
        if (rows == 17 && tokens == 3) check_against_double(p, want);
      }
  }
}

TEST_CASE("gpu matmul: a token's bits do not depend on its company within its phase") {
  Rng rng(12);
  for (const Kind kind : kinds) {
    CAPTURE(info(kind.type).name);
    CAPTURE(static_cast<int>(kind.format));
    const Product p(kind, 11, random_cols(kind, rng), 16, rng);
    const std::vector<float> all = run_product(p);
    for (const uint32_t n : {1u, 2u, 3u, 4u, 5u, 8u, 9u}) {
      const uint32_t first = rng() % (p.tokens - n + 1);
      const DeviceArray<float> out(size_t{n} * p.rows);
      run_call(p.some(first, n, out.data()));
      const std::vector<float> some = out.get();
      CHECK(std::memcmp(some.data(), all.data() + size_t{first} * p.rows, some.size() * 4) == 0);
    }
  }
}

TEST_CASE("gpu matmul: a prompt's token has the same bits in prompts of any length") {
  Rng rng(13);
  for (const Kind kind :
       {Kind{DType::q4_k, ActFormat::q8}, {DType::q5_1, ActFormat::q8}, {DType::q6_k, ActFormat::f32}}) {
    const Product p(kind, 67, 256 * 3, 150, rng);
    const std::vector<float> all = run_product(p);
    for (const uint32_t n : {17u, 31u, 129u}) {
      const uint32_t first = rng() % (p.tokens - n + 1);
      const DeviceArray<float> out(size_t{n} * p.rows);
      run_call(p.some(first, n, out.data()));
      const std::vector<float> some = out.get();
      CHECK(std::memcmp(some.data(), all.data() + size_t{first} * p.rows, some.size() * 4) == 0);
    }
  }
}

namespace {

// A context whose long prompts go through the library, with scratch memory for n rows.
class DenseContext {
 public:
  DenseContext(const Product& p, uint32_t n) : scratch_(size_t{n} * p.cols * 2) {}
  KernelContext get() const { return {8, scratch_.data(), scratch_.size(), dense_product(0)}; }

 private:
  DeviceArray<std::byte> scratch_;
};

}  // namespace

TEST_CASE("gpu matmul: long prompts by a library, of every type and in parts, against double precision") {
  if (dense_product(0) == nullptr) {
    MESSAGE("no library here: products of long prompts are those of short ones");
    CHECK(dense_product_name(0) == "mma");
    return;
  }
  Rng rng(17);
  for (const Kind kind : kinds) {
    if (kind.format != ActFormat::q8) continue;
    CAPTURE(info(kind.type).name);
    const Product p(kind, 272, 256 * (1 + rng() % 2), dense_tokens, rng, rng() % 4 == 0);
    for (const uint32_t scratch_rows : {272u, 128u}) {
      const DenseContext context(p, scratch_rows);
      const DeviceArray<float> out(size_t{p.tokens} * p.rows);
      REQUIRE(matmul_dense_serves(p.call(out.data()), context.get()));
      run_call(p.call(out.data()), context.get());
      check_against_double(p, out.get());
    }
  }
}

TEST_CASE("gpu matmul: a library's products with bias and accumulation, and which it leaves to our own kernel") {
  if (dense_product(0) == nullptr) return;
  Rng rng(18);
  const Product p({DType::q4_k, ActFormat::q8}, 144, 256, dense_tokens + 3, rng);
  const DenseContext context(p, 144);
  const std::vector<float> bias = random_floats(p.rows, rng, 100);
  const std::vector<float> before = random_floats(size_t{p.tokens} * p.rows, rng, 100);
  const DeviceArray<float> device_bias(bias), product(before.size()), biased(before.size()), added(before);
  run_call(p.call(product.data()), context.get());
  MatmulCall with_bias = p.call(biased.data()), accumulated = p.call(added.data());
  with_bias.bias = device_bias.data();
  accumulated.accumulate = true;
  run_call(with_bias, context.get());
  run_call(accumulated, context.get());
  std::vector<float> expected_bias = product.get(), sums = added.get();
  for (size_t i = 0; i < before.size(); ++i) {
    CHECK(sums[i] == doctest::Approx(expected_bias[i] + before[i]).epsilon(1e-5));
    expected_bias[i] += bias[i % p.rows];
  }
  CHECK(same_bits(biased.get(), expected_bias));

  MatmulCall other = with_bias;
  other.accumulate = true;  // the bias comes first
  CHECK_FALSE(matmul_dense_serves(other, context.get()));
  other = p.call(product.data());
  other.n_tokens = dense_tokens - 1;
  CHECK_FALSE(matmul_dense_serves(other, context.get()));
  KernelContext small = context.get();
  small.scratch_bytes = dense_least_scratch_bytes(p.rows, p.cols) - 1;
  CHECK_FALSE(matmul_dense_serves(p.call(product.data()), small));
  small.scratch_bytes = dense_least_scratch_bytes(p.rows, p.cols);
  CHECK(matmul_dense_serves(p.call(product.data()), small));
}

TEST_CASE("gpu matmul: row tiles do not change the bits, at any alignment") {
  Rng rng(14);
  for (const Kind kind : kinds) {
    CAPTURE(info(kind.type).name);
    CAPTURE(static_cast<int>(kind.format));
    for (const uint32_t tokens : {1u, 12u, 20u}) {
      const Product p(kind, 5 + rng() % 40, random_cols(kind, rng), tokens, rng);
      const std::vector<float> whole = run_product(p);
      const DeviceArray<float> cut(whole.size());
      for (uint32_t row = 0; row < p.rows;) {
        MatmulCall call = p.call(cut.data() + row);
        call.weights += row * row_bytes(kind.type, p.cols);
        call.rows = std::min<uint32_t>(1 + rng() % 20, p.rows - row);
        run_call(call);
        row += call.rows;
      }
      CHECK(same_bits(cut.get(), whole));
    }
  }
}

// A block then has several tiles, one after the other, and tiles of more rows.
TEST_CASE("gpu matmul: the size of grids does not change the bits") {
  Rng rng(19);
  for (const Kind kind : kinds) {
    if (kind.format != ActFormat::q8) continue;
    CAPTURE(info(kind.type).name);
    for (const uint32_t tokens : {1u, 5u, 12u}) {
      const Product p(kind, 150, 256 * (5 + rng() % 3), tokens, rng);
      const std::vector<float> many_sms = run_product(p);
      check_against_double(p, many_sms);
      const DeviceArray<float> out(many_sms.size());
      run_call(p.call(out.data()), {1, nullptr, 0});
      CHECK(same_bits(out.get(), many_sms));
    }
  }
}

TEST_CASE("gpu matmul: bias, accumulation and a wide output") {
  Rng rng(15);
  for (const Kind kind :
       {Kind{DType::q8_0, ActFormat::q8}, {DType::q4_k, ActFormat::f32}, {DType::bf16, ActFormat::f32}})
    for (const uint32_t tokens : {1u, 7u, 19u}) {
      const Product p(kind, 35, kind.type == DType::bf16 ? 77 : 256, tokens, rng);
      const uint32_t stride = p.rows + 1 + rng() % 20;
      const std::vector<float> bias = random_floats(p.rows, rng, 100);
      const std::vector<float> before = random_floats(size_t{p.tokens - 1} * stride + p.rows, rng, 100);
      const std::vector<float> product = run_product(p);
      const DeviceArray<float> device_bias(bias);
      for (int mode = 0; mode < 4; ++mode) {
        const bool with_bias = mode % 2 != 0, accumulate = mode / 2 != 0;
        std::vector<float> expected = before;
        for (uint32_t t = 0; t < p.tokens; ++t)
          for (uint32_t r = 0; r < p.rows; ++r) {
            float value = product[size_t{t} * p.rows + r];
            if (with_bias) value += bias[r];
            float& at = expected[size_t{t} * stride + r];
            at = accumulate ? at + value : value;
          }
        const DeviceArray<float> out(before);
        MatmulCall call = p.call(out.data());
        call.out_stride = stride;
        call.bias = with_bias ? device_bias.data() : nullptr;
        call.accumulate = accumulate;
        run_call(call);
        CHECK(same_bits(out.get(), expected));
      }
    }
}

TEST_CASE("gpu matmul: the largest weights and activations do not overflow") {
  Rng rng(16);
  for (const Kind kind : kinds) {
    CAPTURE(info(kind.type).name);
    for (const uint32_t tokens : {2u, 17u}) {
      const Product p(kind, 3, 256, tokens, rng, true);
      check_against_double(p, run_product(p));
    }
  }
}

TEST_CASE("gpu matmul: nothing to do, and a type without products") {
  const DeviceArray<float> out(1);
  run_call(MatmulCall{nullptr, DType::q4_0, 0, 32, nullptr, ActFormat::q8, 1, out.data(), 1, nullptr, false});
  run_call(MatmulCall{nullptr, DType::q4_0, 1, 32, nullptr, ActFormat::q8, 0, out.data(), 1, nullptr, false});
  const MatmulCall call{nullptr, DType::f16, 1, 32, nullptr, ActFormat::q8, 1, out.data(), 1, nullptr, false};
  CHECK(run(stream(), call, KernelContext{}).code() == Code::unsupported);
}
