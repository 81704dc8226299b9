// Half and bfloat16 conversions against arithmetic on exact values, and the sizes of rows.
#include "core/dtype.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace sluice {
namespace {

// What the bits of a small float mean, by the definition of IEEE 754: exact in double.
double meaning(uint32_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  const int exponent = static_cast<int>(bits >> mantissa_bits) & top;
  const double fraction = std::ldexp(static_cast<double>(bits & ((1u << mantissa_bits) - 1)), -mantissa_bits);
  const double sign = (bits >> (exponent_bits + mantissa_bits)) & 1 ? -1 : 1;
  if (exponent == top) return fraction == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias);
  return sign * std::ldexp(1 + fraction, exponent - bias);
}

bool same(double a, double b) { return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b); }

using Narrow = uint16_t (*)(float);

// Every value and the floats around each border between two neighbours: below the middle the lower one,
// above it the upper one, in the middle the one with an even mantissa.
void check_rounding(Narrow narrow, int exponent_bits, int mantissa_bits) {
  const uint32_t infinity = ((1u << exponent_bits) - 1) << mantissa_bits;
  const uint32_t sign = 1u << (exponent_bits + mantissa_bits);
  for (uint32_t bits = 0; bits < infinity; ++bits) {
    const double low = meaning(bits, exponent_bits, mantissa_bits);
    // Behind the largest value stands the one that would follow with a larger exponent: infinity.
    const double high = bits + 1 < infinity ? meaning(bits + 1, exponent_bits, mantissa_bits)
                                            : 2 * low - meaning(bits - 1, exponent_bits, mantissa_bits);
    const float middle = static_cast<float>((low + high) / 2);
    const bool exact = static_cast<double>(middle) == (low + high) / 2;
    if (narrow(static_cast<float>(low)) != bits) FAIL("value ", bits);
    if (narrow(static_cast<float>(-low)) != (bits | sign)) FAIL("value -", bits);
    if (exact && narrow(middle) != (bits & 1 ? bits + 1 : bits)) FAIL("tie above ", bits);
    if (exact && narrow(-middle) != ((bits & 1 ? bits + 1 : bits) | sign)) FAIL("tie below -", bits);
    if (exact && narrow(std::nextafterf(middle, 0)) != bits) FAIL("below the middle above ", bits);
    if (exact && narrow(std::nextafterf(middle, INFINITY)) != bits + 1) FAIL("above the middle above ", bits);
  }
  CHECK(narrow(INFINITY) == infinity);
  CHECK(narrow(-INFINITY) == (infinity | sign));
  CHECK(narrow(std::numeric_limits<float>::max()) == infinity);
}

TEST_CASE("dtype: all 65,536 halves and bfloat16s mean what IEEE 754 says") {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto narrow = static_cast<uint16_t>(bits);
    if (!same(half_to_float(narrow), meaning(bits, 5, 10))) FAIL("half ", bits);
    if (!same(bf16_to_float(narrow), meaning(bits, 8, 7))) FAIL("bfloat16 ", bits);
    if (std::isnan(meaning(bits, 5, 10))) {
      if (!std::isnan(half_to_float(float_to_half(half_to_float(narrow))))) FAIL("half NaN ", bits);
    } else if (float_to_half(half_to_float(narrow)) != bits) {
      FAIL("half there and back ", bits);
    }
  }
}

TEST_CASE("dtype: floats become the nearest half, ties to even") { check_rounding(float_to_half, 5, 10); }
TEST_CASE("dtype: floats become the nearest bfloat16, ties to even") { check_rounding(float_to_bf16, 8, 7); }

TEST_CASE("dtype: every NaN stays a NaN of its sign") {
  for (uint32_t mantissa = 1; mantissa < (1u << 23); mantissa = mantissa * 3 + 1) {
    for (const uint32_t sign : {0u, 0x80000000u}) {
      const float nan = std::bit_cast<float>(sign | 0x7f800000u | mantissa);
      CHECK(std::isnan(half_to_float(float_to_half(nan))));
      CHECK(std::isnan(bf16_to_float(float_to_bf16(nan))));
      CHECK((float_to_half(nan) >> 15) == (sign >> 31));
      CHECK((float_to_bf16(nan) >> 15) == (sign >> 31));
    }
  }
}

TEST_CASE("dtype: subnormal floats are zero as halves, and the smallest half is not") {
  CHECK(float_to_half(std::numeric_limits<float>::denorm_min()) == 0);
  CHECK(float_to_half(-std::numeric_limits<float>::denorm_min()) == 0x8000);
  CHECK(float_to_half(0x1p-24f) == 1);
  CHECK(float_to_half(0x1p-25f) == 0);  // a tie
  CHECK(float_to_half(0x1.8p-25f) == 1);
}

TEST_CASE("dtype: rows take whole blocks, and ggml's ids lead there and back") {
  CHECK(row_bytes(DType::f32, 64) == 256);
  CHECK(row_bytes(DType::f16, 64) == 128);
  CHECK(row_bytes(DType::bf16, 3) == 6);
  CHECK(row_bytes(DType::q4_0, 64) == 36);
  CHECK(row_bytes(DType::q4_1, 64) == 40);
  CHECK(row_bytes(DType::q8_0, 64) == 68);
  CHECK(row_bytes(DType::q4_k, 512) == 288);
  CHECK(row_bytes(DType::q6_k, 512) == 420);
  CHECK(row_bytes(DType::q8_0, uint64_t{1} << 40) == (uint64_t{1} << 35) * 34);
  int known = 0;
  for (uint32_t id = 0; id < 300; ++id) {
    const auto type = dtype_from_ggml(id);
    CHECK(!ggml_type_name(id).empty());
    if (!type) continue;
    ++known;
    CHECK(info(*type).ggml_type == static_cast<int>(id));
    CHECK(info(*type).name == ggml_type_name(id));
    CHECK(info(*type).block_bytes > 0);
  }
  CHECK(known >= 9);
  CHECK(!dtype_from_ggml(UINT32_MAX));
  CHECK(ggml_type_name(UINT32_MAX) == "unknown type");
}

}  // namespace
}  // namespace sluice
