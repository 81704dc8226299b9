// Products of activations in groups: the parts that each instruction set has, and DenseProduct on bf16 tiles made in
// plain C++ and, where there is one, on the library's, and on tiles of wide8.
#include "cpu/dense_product.h"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "cpu/cpu_device.h"
#include "tests/cpu/packed.h"

using namespace sluice;
using namespace sluice::cpu;
using namespace sluice::test;

namespace {

float from_bf16(uint16_t b) {
  const uint32_t bits = uint32_t{b} << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

// By comparing distances, with no arithmetic on bits but neighbours.
uint16_t nearest_bf16(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  const auto below = static_cast<uint16_t>(bits >> 16), above = static_cast<uint16_t>(below + 1);
  const double down = std::abs(double{f} - from_bf16(below)), up = std::abs(double{from_bf16(above)} - f);
  return down < up || (down == up && below % 2 == 0) ? below : above;
}

// Where column c of token t lies in packed activations.
size_t packed_at(uint32_t t, uint32_t c, uint32_t cols) {
  return size_t{t / act_group} * act_group * cols + c / 2 * (2 * act_group) + t % act_group * 2 + c % 2;
}

// Tiles in plain C++; fails once `calls_left` is used up, and refuses `refused` columns.
class PlainTiles : public TileProduct {
 public:
  static TileMaker maker(int calls_left = INT32_MAX, uint32_t refused = 0) {
    return [=](uint32_t, std::byte*, uint64_t) {
      return Result<std::unique_ptr<TileProduct>>(std::make_unique<PlainTiles>(calls_left, refused));
    };
  }
  PlainTiles(int calls_left, uint32_t refused) : calls_left_(calls_left), refused_(refused) {}

  ActFormat format() const override { return ActFormat::bf16; }
  Status prepare(uint32_t cols) override {
    prepared_.at(cols / 32 - 1) = true;
    return cols == refused_ ? error(Code::unsupported, "no product of {} columns", cols) : Status();
  }
  bool multiply(const TileCall& call, uint32_t) override {
    if (!prepared_.at(call.cols / 32 - 1) || calls_left_.fetch_sub(1) <= 0) return false;
    const auto *a = reinterpret_cast<const uint16_t*>(call.a), *b = reinterpret_cast<const uint16_t*>(call.b);
    for (uint32_t r = 0; r < act_group; ++r)
      for (uint32_t t = 0; t < act_group; ++t) {
        float sum = call.accumulate ? call.c[r * act_group + t] : 0;
        for (uint32_t k = 0; k < call.cols; ++k)
          sum += from_bf16(a[size_t{r} * call.cols + k]) * from_bf16(b[packed_at(t, k, call.cols)]);
        call.c[r * act_group + t] = sum;
      }
    return true;
  }
  const std::string& name() const override { return name_; }

 private:
  std::atomic<int> calls_left_;
  const uint32_t refused_;
  std::array<bool, most_cols / 32> prepared_{};
  const std::string name_ = "plain";
};

// An implementation, and the format that it is looked at with.
struct Subject {
  std::unique_ptr<DenseProduct> dense;
  ActFormat format;
  DenseProduct* operator->() const { return dense.get(); }
  DenseProduct& operator*() const { return *dense; }
};

// Every implementation that there is here, for `n_threads`; the second and third have two formats.
std::vector<Subject> all_products(uint32_t n_threads = 1) {
  std::vector<Subject> all;
  const auto add = [&](ActFormat format, const std::vector<TileMaker>& makers) {
    auto made = DenseProduct::create(kernels(best_isa()), n_threads, makers);
    if (made.ok()) all.push_back({std::move(*made), format});
    return made.status();
  };
  REQUIRE(add(ActFormat::bf16, {PlainTiles::maker()}).ok());
  REQUIRE(add(ActFormat::bf16, {wide8_tiles(kernels(best_isa())), PlainTiles::maker()}).ok());
  REQUIRE(add(ActFormat::wide8, {PlainTiles::maker(), wide8_tiles(kernels(best_isa()))}).ok());
  if (const Status library = add(ActFormat::bf16, {bf16_tiles()}); !library.ok())
    MESSAGE("bf16 only in plain C++: ", library.message());
  return all;
}

Outputs run(DenseProduct& dense, const Product& p, uint32_t shares = 1) {
  Outputs out(size_t{p.tokens} * p.rows, std::nanf(""));
  REQUIRE(dense.prepare(p.format, p.cols).ok());
  for (uint32_t s = 0; s < shares; ++s) dense.multiply(p.call(out.data()), {s, shares}, 0);
  REQUIRE(dense.take_failure().ok());
  return out;
}

std::vector<uint16_t> row_as_bf16(const Product& p, uint32_t row) {
  std::vector<uint16_t> out(p.cols);
  const uint64_t bytes = row_bytes(p.type, p.cols);
  kernels(Isa::scalar)
      .pack_panel({p.weights.data() + row * bytes, p.type, bytes, 1, p.cols, ActFormat::bf16,
                   reinterpret_cast<std::byte*>(out.data())});
  return out;
}

std::vector<std::byte> row_as_wide8(const Product& p, uint32_t row) {
  std::vector<std::byte> out(group_bytes(ActFormat::wide8, p.cols));
  const uint64_t bytes = row_bytes(p.type, p.cols);
  kernels(Isa::scalar)
      .pack_panel({p.weights.data() + row * bytes, p.type, bytes, 1, p.cols, ActFormat::wide8, out.data()});
  return out;
}

// Against sums in double precision: of the same integers and scales, as exactly as a sum in f32 for each block is, and
// of the values before they were rounded, each by half a scale at most.
void check_wide8(const Product& p, const Outputs& out) {
  const Wide8 x(p.packed.data, p.cols);
  for (uint32_t r = 0; r < p.rows; r += 1 + r % 3) {
    const std::vector<Weight> exact = decode(p.type, p.weights.data() + r * row_bytes(p.type, p.cols), p.cols);
    const std::vector<std::byte> row = row_as_wide8(p, r);
    const Wide8 w(row.data(), p.cols);
    for (uint32_t t = 0; t < p.tokens; t += 1 + t % 5) {
      double sum = 0, size = 0, exact_sum = 0, off = 0;
      for (uint32_t c = 0; c < p.cols; ++c) {
        const double value = p.x[size_t{t} * p.cols + c], weight = exact[c].value();
        const double term = double{w.scale(0, c)} * w.weight(0, c) * x.scale(t, c) * x.activation(t, c);
        sum += term;
        size += std::abs(term);
        exact_sum += weight * value;
        const double half_w = 0.5001 * w.scale(0, c), half_x = 0.5001 * x.scale(t, c);
        off += std::abs(weight) * half_x + (std::abs(value) + half_x) * half_w;
      }
      const double got = out[size_t{t} * p.rows + r];
      REQUIRE(std::abs(got - sum) <= (p.cols / 256 + 4) * 0x1p-23 * size + 1e-30);
      REQUIRE(std::abs(got - exact_sum) <= off + (p.cols / 256 + 4) * 0x1p-23 * size + 1e-30);
    }
  }
}

// Against sums in double precision: of the same bf16 values, as exactly as sums in f32 are, and of the values before
// they were rounded, each by a 256th of it at most.
void check_against_double(const Product& p, const Outputs& out) {
  if (p.format == ActFormat::wide8) return check_wide8(p, out);
  for (uint32_t r = 0; r < p.rows; r += 1 + r % 3) {
    const std::vector<Weight> exact = decode(p.type, p.weights.data() + r * row_bytes(p.type, p.cols), p.cols);
    const std::vector<uint16_t> w = row_as_bf16(p, r);
    for (uint32_t t = 0; t < p.tokens; t += 1 + t % 5) {
      double sum = 0, size = 0, exact_sum = 0, exact_size = 0;
      for (uint32_t c = 0; c < p.cols; ++c) {
        const double x = p.x[size_t{t} * p.cols + c];
        const double term = double{from_bf16(w[c])} * from_bf16(nearest_bf16(static_cast<float>(x)));
        sum += term;
        size += std::abs(term);
        exact_sum += exact[c].value() * x;
        exact_size += (std::abs(exact[c].product) + std::abs(exact[c].minimum)) * std::abs(x);
      }
      const double got = out[size_t{t} * p.rows + r];
      REQUIRE(std::abs(got - sum) <= p.cols * 0x1p-24 * size + 1e-30);
      REQUIRE(std::abs(got - exact_sum) <= 0x1.02p-7 * exact_size + 1e-30);
    }
  }
}

}  // namespace

TEST_CASE(
    "bf16 activations: the nearest of every value, packed by pairs of columns, the same on every ISA and in shares") {
  Rng rng(60);
  for (const uint32_t tokens : {1u, 3u, 16u, 63u, 64u, 65u, 130u}) {
    const uint32_t cols = 32 * (1 + rng() % 9);
    std::vector<float> x = random_floats(size_t{tokens} * cols, rng);
    for (size_t i = 0; i < x.size(); i += 7) {  // halfway between neighbours, and just beside
      uint32_t bits;
      std::memcpy(&bits, &x[i], 4);
      bits = (bits & 0xffff0000u) | (0x7fffu + static_cast<uint32_t>(i / 7 % 3));
      std::memcpy(&x[i], &bits, 4);
    }
    for (const Isa isa : supported_isas())
      for (const uint32_t shares : {1u, 2u, 5u}) {
        std::vector<uint16_t> out(groups_bytes(ActFormat::bf16, tokens, cols) / 2, 0xffff);
        for (uint32_t s = 0; s < shares; ++s)
          kernels(isa).quantize({x.data(), ActFormat::bf16, tokens, cols, reinterpret_cast<std::byte*>(out.data())},
                                {s, shares});
        size_t wrong = 0;
        for (uint32_t t = 0; t < align_up(tokens, act_group); ++t)
          for (uint32_t c = 0; c < cols; ++c) {
            const uint16_t want = t < tokens ? nearest_bf16(x[size_t{t} * cols + c]) : 0;
            wrong += out[packed_at(t, c, cols)] != want;
          }
        CHECK(wrong == 0);
      }
  }
}

TEST_CASE("bf16 activations: infinities stay, every NaN stays one, what is too large becomes infinite") {
  std::vector<float> x(32, 0.0f);
  const uint32_t bits[] = {0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001,
                           0x7fffffff, 0xffffffff, 0x7f7fffff, 0x80000000};
  std::memcpy(x.data(), bits, sizeof bits);
  for (const Isa isa : supported_isas()) {
    std::vector<uint16_t> out(groups_bytes(ActFormat::bf16, 1, 32) / 2);
    kernels(isa).quantize({x.data(), ActFormat::bf16, 1, 32, reinterpret_cast<std::byte*>(out.data())}, {});
    const auto at = [&](uint32_t c) { return from_bf16(out[packed_at(0, c, 32)]); };
    CHECK(at(0) == HUGE_VALF);
    CHECK(at(1) == -HUGE_VALF);
    for (const uint32_t c : {2u, 3u, 4u, 5u}) CHECK(std::isnan(at(c)));
    CHECK(at(6) == HUGE_VALF);
    CHECK(out[packed_at(0, 7, 32)] == 0x8000);
  }
}

TEST_CASE("weights as bf16: a 256th of them off at most, the same bits on every ISA") {
  Rng rng(61);
  for (const DType type : packed_types) {
    CAPTURE(info(type).name);
    const uint32_t rows = 1 + rng() % 20, cols = random_cols(type, rng);
    const uint64_t bytes = row_bytes(type, cols);
    const ExactBuffer weights(rows * bytes, 3);
    random_weights(type, uint64_t{rows} * cols, rng, weights.data());
    const std::vector<Weight> exact = decode(type, weights.data(), uint64_t{rows} * cols);
    std::vector<uint16_t> first;
    for (const Isa isa : supported_isas()) {
      std::vector<uint16_t> out(size_t{rows} * cols, 0xffff);
      kernels(isa).pack_panel(
          {weights.data(), type, bytes, rows, cols, ActFormat::bf16, reinterpret_cast<std::byte*>(out.data())});
      if (first.empty()) first = out;
      CHECK(out == first);
    }
    double worst = 0;
    for (size_t i = 0; i < first.size(); ++i) {
      const double size = std::abs(exact[i].product) + std::abs(exact[i].minimum);
      worst = std::max(worst, (std::abs(from_bf16(first[i]) - exact[i].value()) - 1e-30) / size);
    }
    CHECK(worst <= 0x1.01p-8);
  }
}

TEST_CASE("dense product: every type over random shapes, against double precision") {
  Rng rng(62);
  for (const auto& dense : all_products())
    for (const DType type : packed_types) {
      CAPTURE(dense->name());
      CAPTURE(info(type).name);
      for (const uint32_t rows : {1u, 17u, 64u, 130u, 205u}) {
        const Product p(type, rows, random_cols(type, rng), 1 + rng() % 150, rng, dense.format);
        CAPTURE(rows);
        CAPTURE(p.cols);
        CAPTURE(p.tokens);
        check_against_double(p, run(*dense, p));
      }
    }
}

TEST_CASE("dense product: more tokens than share a panel") {
  Rng rng(63);
  for (const auto& dense : all_products()) {
    const Product p(DType::q4_0, 70, 1056, 600, rng, dense.format);
    check_against_double(p, run(*dense, p));
  }
}

TEST_CASE("dense product: a token's bits do not depend on its company") {
  Rng rng(64);
  for (const auto& dense : all_products())
    for (const DType type : packed_types) {
      CAPTURE(dense->name());
      CAPTURE(info(type).name);
      const Product p(type, 80, random_cols(type, rng), 200, rng, dense.format);
      const Outputs all = run(*dense, p);
      for (const uint32_t n : {1u, 2u, 16u, 17u, 63u, 64u, 65u, 140u}) {
        const uint32_t first = rng() % (p.tokens - n + 1);
        const Packed some_x(p.x.data() + size_t{first} * p.cols, n, p.cols, p.format);
        Outputs some(size_t{n} * p.rows);
        MatmulCall call = p.call(some.data());
        call.x = some_x.data;
        call.n_tokens = n;
        dense->multiply(call, {}, 0);
        CHECK(std::memcmp(some.data(), all.data() + size_t{first} * p.rows, some.size() * 4) == 0);
      }
    }
}

TEST_CASE("dense product: shares and row tiles do not change the bits") {
  Rng rng(65);
  for (const auto& dense : all_products())
    for (const DType type : packed_types) {
      CAPTURE(dense->name());
      CAPTURE(info(type).name);
      const Product p(type, 150 + rng() % 150, random_cols(type, rng), 30, rng, dense.format);
      const Outputs whole = run(*dense, p);
      for (uint32_t shares = 2; shares <= 5; ++shares) CHECK(same_bits(run(*dense, p, shares), whole));
      Outputs cut(whole.size(), std::nanf(""));
      for (uint32_t row = 0; row < p.rows;) {
        MatmulCall call = p.call(cut.data() + row);
        call.weights += row * row_bytes(type, p.cols);
        call.rows = std::min<uint32_t>(1 + rng() % 90, p.rows - row);
        dense->multiply(call, {}, 0);
        row += call.rows;
      }
      CHECK(same_bits(cut, whole));
    }
}

TEST_CASE("dense product: bias, accumulation and a wide output, on every ISA") {
  Rng rng(66);
  for (const Isa isa : supported_isas()) {
    const auto dense =
        std::move(DenseProduct::create(kernels(isa), 1, {PlainTiles::maker(), wide8_tiles(kernels(isa))})).value();
    for (const uint32_t rows : {3u, 16u, 99u}) {
      const ActFormat format = rows == 16 ? ActFormat::wide8 : ActFormat::bf16;
      const Product p(DType::q8_0, rows, 64, 1 + rng() % 10, rng, format);
      const Outputs product = run(*dense, p);
      const uint32_t stride = rows + 1 + rng() % 20;
      const std::vector<float> bias = random_floats(rows, rng, 100);
      const std::vector<float> before = random_floats(size_t{p.tokens - 1} * stride + rows, rng, 100);
      for (int mode = 0; mode < 4; ++mode) {
        const bool with_bias = mode % 2 != 0, accumulate = mode / 2 != 0;
        Outputs out = before, expected = before;
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
        dense->multiply(call, {}, 0);
        CHECK(same_bits(out, expected));
      }
    }
  }
}

TEST_CASE("dense product: on a queue, threads do not change the bits") {
  for (size_t subject = 0; subject < all_products().size(); ++subject) {
    Outputs first;
    for (uint32_t n = 1; n <= 5; ++n) {
      const auto all = all_products(n);
      Rng again(167);
      const Product p(DType::q4_k, 700, 1280, 70, again, all[subject].format);
      CpuQueueOptions options;
      options.kernels = &kernels(best_isa());
      options.dense = all[subject].dense.get();
      options.team.n_threads = n;
      options.team.spin_ns = 0;
      const auto queue = std::move(CpuQueue::create(std::move(options))).value();
      Outputs out(size_t{p.tokens} * p.rows, std::nanf(""));
      Packed x(p.x.data(), p.tokens, p.cols, p.format);
      std::memset(x.data, 0, groups_bytes(p.format, p.tokens, p.cols));
      queue->launch(QuantizeCall{p.x.data(), p.format, p.tokens, p.cols, x.data});
      // Tiles of 140 rows, which are fewer shares than five threads could take.
      for (uint32_t row = 0; row < p.rows; row += 140) {
        MatmulCall tile = p.call(out.data() + row);
        tile.weights += row * row_bytes(tile.dtype, tile.cols);
        tile.rows = 140;
        tile.x = x.data;
        queue->launch(tile);
      }
      REQUIRE(queue->signal().wait().ok());
      if (first.empty()) check_against_double(p, first = out);
      CHECK(same_bits(out, first));
    }
  }
}

TEST_CASE("dense product: a library that fails fails the queue, which works again after a reset") {
  Rng rng(68);
  const Product p(DType::q8_0, 300, 96, 20, rng);
  const uint32_t refused = 1024;
  const Product wide(DType::q8_0, 16, 2048, 20, rng);
  for (const uint32_t threads : {1u, 3u}) {
    const auto dense =
        std::move(DenseProduct::create(kernels(best_isa()), threads, {PlainTiles::maker(3, refused)})).value();
    CpuQueueOptions options;
    options.kernels = &kernels(best_isa());
    options.dense = dense.get();
    options.team.n_threads = threads;
    options.team.spin_ns = 0;
    const auto queue = std::move(CpuQueue::create(std::move(options))).value();
    Outputs out(size_t{p.tokens} * p.rows), wide_out(size_t{wide.tokens} * wide.rows, 7.0f);
    queue->launch(p.call(out.data()));
    const Status failed = queue->signal().wait();
    CHECK(failed.code() == Code::over_budget);
    CHECK(failed.message().find("plain") != std::string::npos);
    queue->reset();
    std::vector<float> x(4, 3.0f);
    queue->launch(SoftcapCall{x.data(), 1, 4, 1.0f});
    CHECK(queue->signal().wait().ok());
    CHECK(x[0] < 1.0f);
    queue->launch(wide.call(wide_out.data()));  // of a width that cannot be prepared
    CHECK(queue->signal().wait().code() == Code::unsupported);
    CHECK(wide_out[0] == 7.0f);
    queue->reset();
    CHECK(queue->signal().wait().ok());
  }
}

TEST_CASE("cpu device: prompts in blocks of 256 where weights have such blocks") {
  CpuOptions options;
  options.n_threads = 2;
  options.prompts = Prompts::wide8;
  const auto device = CpuDevice::create(options);
  REQUIRE_MESSAGE(device.ok(), device.status().message());
  const auto format = [&](DType type, Compute compute, bool prompt) {
    return (*device)->act_format(type, compute, prompt);
  };
  CHECK(format(DType::q4_k, Compute::fast, true) == ActFormat::wide8);
  CHECK(format(DType::q6_k, Compute::fast, true) == ActFormat::wide8);
  CHECK(format(DType::q8_0, Compute::fast, true) == ActFormat::q8);
  CHECK(format(DType::q4_k, Compute::fast, false) == ActFormat::q8);
  CHECK(format(DType::q4_k, Compute::f32, true) == ActFormat::f32);
  CHECK(format(DType::f16, Compute::fast, true) == ActFormat::f32);
  CHECK((*device)->act_row_bytes(ActFormat::wide8, 96) == 128 + 4);
  CHECK((*device)->act_row_bytes(ActFormat::wide8, 544) == 2 * (256 + 4) + 64 + 4);
  CHECK((*device)->library().starts_with("wide8 "));
  options.prompts = Prompts::automatic;
  const auto automatic = CpuDevice::create(options);
  REQUIRE(automatic.ok());
  CHECK((*automatic)->library().starts_with("wide8 amx") == may_use_amx_int8());
  CHECK((*automatic)->library().empty() == !may_use_amx_int8());
}

TEST_CASE("cpu device: prompts are bf16 where asked for and possible, and else an error") {
  CpuOptions options;
  options.n_threads = 2;
  options.prompts = Prompts::int8;
  auto device = CpuDevice::create(options);
  REQUIRE(device.ok());
  CHECK((*device)->act_format(DType::q4_k, Compute::fast, true) == ActFormat::q8);
  CHECK((*device)->library().empty());
  CHECK((*device)->scratch_bytes() == 0);
  options.prompts = Prompts::bf16;
  device = CpuDevice::create(options);
  if (const auto possible = DenseProduct::create(kernels(best_isa()), 1, {bf16_tiles()}); !possible.ok()) {
    CHECK(device.status().code() == possible.status().code());
    CHECK(device.status().message().find("oneDNN") != std::string::npos);
    return;
  }
  REQUIRE_MESSAGE(device.ok(), device.status().message());
  CHECK((*device)->act_format(DType::q4_k, Compute::fast, true) == ActFormat::bf16);
  CHECK((*device)->act_format(DType::q4_k, Compute::fast, false) == ActFormat::q8);
  CHECK((*device)->act_format(DType::q4_k, Compute::f32, true) == ActFormat::f32);
  CHECK((*device)->act_format(DType::bf16, Compute::fast, true) == ActFormat::f32);
  CHECK((*device)->act_row_bytes(ActFormat::bf16, 96) == 192);
  CHECK((*device)->scratch_bytes() == DenseProduct::scratch_bytes(2));
  CHECK((*device)->library().starts_with("oneDNN "));
  CHECK((*device)->describe().find((*device)->library()) != std::string::npos);
}
