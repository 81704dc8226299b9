#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "tests/cpu/reference.h"

using namespace sluice;
using namespace sluice::test;

namespace {

constexpr DType all_types[] = {DType::f32,  DType::f16,  DType::bf16, DType::q4_0, DType::q4_1,
                               DType::q5_0, DType::q5_1, DType::q8_0, DType::q4_k, DType::q6_k};

uint32_t bits(float f) {
  uint32_t b;
  std::memcpy(&b, &f, 4);
  return b;
}

std::vector<float> gather(cpu::Isa isa, DType type, const std::vector<const std::byte*>& rows, uint32_t cols,
                          float scale, uint32_t shares) {
  std::vector<float> out(rows.size() * cols, 12345.0f);
  const GatherRowsCall call = {rows.data(), type, static_cast<uint32_t>(rows.size()), cols, scale, out.data()};
  for (uint32_t s = 0; s < shares; ++s) cpu::kernels(isa).gather_rows(call, {s, shares});
  return out;
}

// Every 16-bit pattern in one row.
std::vector<float> all_patterns(cpu::Isa isa, DType type) {
  std::vector<uint16_t> row(65536);
  for (uint32_t i = 0; i < 65536; ++i) row[i] = static_cast<uint16_t>(i);
  return gather(isa, type, {reinterpret_cast<const std::byte*>(row.data())}, 65536, 1.0f, 1);
}

}  // namespace

TEST_CASE("gather_rows: rows that lie anywhere, against double precision, with one rounding") {
  Rng rng(3);
  for (const DType type : all_types) {
    CAPTURE(info(type).name);
    const bool plain = info(type).block_elements == 1;
    for (const uint32_t blocks : {1u, 2u, 5u, 37u}) {
      const uint32_t cols = blocks * info(type).block_elements;
      const uint64_t bytes = row_bytes(type, cols);
      std::vector<ExactBuffer> storage;
      std::vector<const std::byte*> rows;
      for (uint32_t i = 0; i < 7; ++i) {
        storage.emplace_back(bytes, rng() % 16);
        random_weights(type, cols, rng, storage.back().data());
        rows.push_back(storage.back().data());
      }
      rows.push_back(rows[2]);
      const std::vector<float> expected = gather(cpu::Isa::scalar, type, rows, cols, 1.0f, 1);
      for (size_t r = 0; r < rows.size(); ++r) {
        const std::vector<Weight> exact = decode(type, rows[r], cols);
        for (uint32_t c = 0; c < cols; ++c) {
          const double value = exact[c].value(), error = std::abs(expected[r * cols + c] - value);
          REQUIRE(error <= (plain ? 0.0 : std::abs(value) * 0x1p-24));
        }
      }
      for (const cpu::Isa isa : supported_isas())
        for (const uint32_t shares : {1u, 3u, 5u}) CHECK(gather(isa, type, rows, cols, 1.0f, shares) == expected);
    }
  }
}

TEST_CASE("gather_rows: the scale multiplies") {
  Rng rng(4);
  ExactBuffer row(row_bytes(DType::q4_1, 96), 3);
  random_weights(DType::q4_1, 96, rng, row.data());
  for (const cpu::Isa isa : supported_isas()) {
    std::vector<float> once = gather(isa, DType::q4_1, {row.data()}, 96, 1.0f, 1);
    for (float& f : once) f *= 11.3137f;
    CHECK(gather(isa, DType::q4_1, {row.data()}, 96, 11.3137f, 1) == once);
  }
}

TEST_CASE("gather_rows: all 65,536 halves and bfloat16s") {
  for (const cpu::Isa isa : supported_isas()) {
    const std::vector<float> halves = all_patterns(isa, DType::f16), bf16s = all_patterns(isa, DType::bf16);
    for (uint32_t i = 0; i < 65536; ++i) {
      const auto h = static_cast<uint16_t>(i);
      const double exact = half_value(h);
      if (std::isnan(exact)) {
        REQUIRE(std::isnan(halves[i]));
        REQUIRE(std::isnan(half_to_float(h)));
      } else {
        REQUIRE(bits(halves[i]) == bits(static_cast<float>(exact)));
        REQUIRE(bits(half_to_float(h)) == bits(static_cast<float>(exact)));
        REQUIRE(float_to_half(halves[i]) == h);
      }
      REQUIRE(bits(bf16s[i]) == i << 16);
    }
  }
}
