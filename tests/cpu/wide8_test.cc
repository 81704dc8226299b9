// ActFormat::wide8: how activations and weights are packed, and the products of tiles.
#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include "tests/cpu/packed.h"

using namespace sluice;
using namespace sluice::cpu;
using namespace sluice::test;

TEST_CASE("wide8 activations: nearest integers of every block, in pieces, the same on every ISA and in shares") {
  Rng rng(69);
  for (const uint32_t tokens : {1u, 16u, 63u, 64u, 65u, 130u}) {
    const uint32_t cols = 32 * (1 + rng() % 20);
    CAPTURE(tokens);
    CAPTURE(cols);
    std::vector<float> x = random_floats(size_t{tokens} * cols, rng);
    if (cols > 256) std::fill_n(x.begin(), 256, 0.0f);  // a block of zeros
    std::vector<std::byte> first;
    for (const Isa isa : supported_isas())
      for (const uint32_t shares : {1u, 2u, 5u}) {
        std::vector<std::byte> out(groups_bytes(ActFormat::wide8, tokens, cols), std::byte{0x55});
        for (uint32_t s = 0; s < shares; ++s)
          kernels(isa).quantize({x.data(), ActFormat::wide8, tokens, cols, out.data()}, {s, shares});
        if (first.empty()) first = out;
        CHECK(out == first);
      }
    const Wide8 packed(first.data(), cols);
    double worst = 0;
    size_t wrong = 0;
    for (uint32_t t = 0; t < align_up(tokens, act_group); ++t)
      for (uint32_t c = 0; c < align_up(cols, 64); ++c) {
        if (t >= tokens || c >= cols) {
          wrong += packed.activation(t, c) != 0 || (t >= tokens && packed.scale(t, std::min(c, cols - 1)) != 0);
          continue;
        }
        const float* block = x.data() + size_t{t} * cols + c / 256 * 256;
        float most = 0;
        for (uint32_t i = 0; i < packed.cols_of(c); ++i) most = std::max(most, std::abs(block[i]));
        wrong += packed.scale(t, c) != most / 127.0f;
        const double value = double{packed.scale(t, c)} * packed.activation(t, c);
        if (most > 0) worst = std::max(worst, std::abs(value - x[size_t{t} * cols + c]) / packed.scale(t, c));
      }
    CHECK(wrong == 0);
    CHECK(worst <= 0.5001);
  }
}

TEST_CASE("wide8: a block with an infinity or a NaN is noticed, one of tiny values is zero") {
  for (const Isa isa : supported_isas())
    for (const float bad : {HUGE_VALF, -HUGE_VALF, std::nanf(""), 1e-38f}) {
      std::vector<float> x(512, bad == 1e-38f ? bad : 1.0f);
      x[300] = bad;
      std::vector<std::byte> out(groups_bytes(ActFormat::wide8, 1, 512));
      kernels(isa).quantize({x.data(), ActFormat::wide8, 1, 512, out.data()}, {});
      const Wide8 packed(out.data(), 512);
      CHECK(std::isnan(packed.scale(0, 300)) == (bad != 1e-38f));
      CHECK(packed.activation(0, 301) == 0);
      CHECK(packed.activation(0, 10) == (bad == 1e-38f ? 0 : 127));
      // Of weights by their scales: F16 infinities and NaNs as files may have them.
      for (const DType type : {DType::q4_k, DType::q6_k, DType::q8_0}) {
        ExactBuffer weights(row_bytes(type, 256), 1);
        Rng rng(70);
        random_weights(type, 256, rng, weights.data());
        const uint16_t half = std::isnan(bad) ? 0x7e00 : 0x7c00;
        std::memcpy(weights.data() + (type == DType::q6_k ? 208 : 0), &half, 2);
        std::vector<std::byte> row(group_bytes(ActFormat::wide8, 256));
        kernels(isa).pack_panel({weights.data(), type, row_bytes(type, 256), 1, 256, ActFormat::wide8, row.data()});
        CHECK(std::isnan(Wide8(row.data(), 256).scale(0, 0)));
      }
    }
}

TEST_CASE("weights as wide8: half a scale off at most, the same bits on every ISA, filled up with zeros") {
  Rng rng(71);
  for (const DType type : packed_types) {
    CAPTURE(info(type).name);
    const uint32_t rows = 1 + rng() % 100, cols = random_cols(type, rng);
    CAPTURE(cols);
    const uint64_t bytes = row_bytes(type, cols);
    const ExactBuffer weights(rows * bytes, 3);
    random_weights(type, uint64_t{rows} * cols, rng, weights.data());
    const std::vector<Weight> exact = decode(type, weights.data(), uint64_t{rows} * cols);
    std::vector<std::byte> first;
    for (const Isa isa : supported_isas()) {
      std::vector<std::byte> out(groups_bytes(ActFormat::wide8, rows, cols));
      kernels(isa).pack_panel({weights.data(), type, bytes, rows, cols, ActFormat::wide8, out.data()});
      if (first.empty()) first = out;
      CHECK(out == first);
    }
    const Wide8 packed(first.data(), cols);
    double worst = 0;
    size_t wrong = 0;
    for (uint32_t r = 0; r < rows; ++r)
      for (uint32_t c = 0; c < align_up(cols, 64); ++c) {
        if (c >= cols) {
          wrong += packed.weight(r, c) != 0;
          continue;
        }
        double most = 0;  // of what the block's sub-blocks may hold
        for (uint32_t i = c / 256 * 256; i < c / 256 * 256 + packed.cols_of(c); ++i)
          most = std::max(most, std::abs(exact[size_t{r} * cols + i].value()));
        const double scale = packed.scale(r, c), value = exact[size_t{r} * cols + c].value();
        const bool by_scales = type == DType::q4_k || type == DType::q6_k;
        wrong += scale < most / 127.001 || (!by_scales && scale > most / 126.999 + 1e-38);
        if (scale > 0) worst = std::max(worst, std::abs(scale * packed.weight(r, c) - value) / scale);
      }
    CHECK(wrong == 0);
    CHECK(worst <= 0.5001);
  }
}

TEST_CASE("wide8 tiles: exact sums, scaled once a block, the same on every ISA and on matrix units") {
  Rng rng(72);
  MESSAGE("matrix units: ", std::string(may_use_amx_int8() ? "AMX" : "none here"));
  for (const uint32_t cols : {32u, 64u, 256u, 288u, 1024u}) {
    CAPTURE(cols);
    const Product p(DType::q8_0, 64, cols, 64, rng, ActFormat::wide8);
    std::vector<std::byte> panel_bytes(group_bytes(ActFormat::wide8, cols) + 64);
    auto* panel = reinterpret_cast<std::byte*>(align_up(reinterpret_cast<uint64_t>(panel_bytes.data()), 64));
    kernels(Isa::scalar)
        .pack_panel({p.weights.data(), p.type, row_bytes(p.type, cols), 64, cols, ActFormat::wide8, panel});
    const Wide8 w(panel, cols), x(p.packed.data, cols);
    for (const bool accumulate : {false, true}) {
      const std::vector<float> before = random_floats(64 * 64, rng);
      Outputs want(64 * 64);
      for (uint32_t r = 0; r < 64; ++r)
        for (uint32_t t = 0; t < 64; ++t) {
          float sum = accumulate ? before[r * 64 + t] : 0.0f;
          for (uint32_t col = 0; col < cols; col += 256) {
            int32_t products = 0;
            for (uint32_t c = col; c < std::min(col + 256, cols); ++c) products += w.weight(r, c) * x.activation(t, c);
            sum = std::fma(static_cast<float>(products), w.scale(r, col) * x.scale(t, col), sum);
          }
          want[r * 64 + t] = sum;
        }
      const auto check = [&](void (*multiply)(const TileCall&)) {
        alignas(64) float c[64 * 64];
        std::memcpy(c, before.data(), sizeof c);
        multiply({panel, p.packed.data, c, cols, accumulate});
        CHECK(same_bits(Outputs(c, c + 64 * 64), want));
      };
      for (const Isa isa : supported_isas()) check(kernels(isa).multiply_wide8);
      if (may_use_amx_int8()) check(amx::multiply_wide8);
    }
  }
}
