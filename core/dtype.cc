#include "core/dtype.h"

#include <array>

namespace sluice {
namespace {

constexpr std::array<DTypeInfo, 11> types = {{
    {"F32", 1, 4, 0},
    {"F16", 1, 2, 1},
    {"BF16", 1, 2, 30},
    {"Q4_0", 32, 18, 2},
    {"Q4_1", 32, 20, 3},
    {"Q5_0", 32, 22, 6},
    {"Q5_1", 32, 24, 7},
    {"Q8_0", 32, 34, 8},
    {"Q4_K", 256, 144, 12},
    {"Q6_K", 256, 210, 14},
    {"I32", 1, 4, 26},
}};

// Ids as in ggml.h; the removed ones were Q4_2, Q4_3 and the interleaved Q4_0 and IQ4_NL layouts.
constexpr std::array<std::string_view, 41> ggml_names = {"F32",
                                                         "F16",
                                                         "Q4_0",
                                                         "Q4_1",
                                                         "removed type 4",
                                                         "removed type 5",
                                                         "Q5_0",
                                                         "Q5_1",
                                                         "Q8_0",
                                                         "Q8_1",
                                                         "Q2_K",
                                                         "Q3_K",
                                                         "Q4_K",
                                                         "Q5_K",
                                                         "Q6_K",
                                                         "Q8_K",
                                                         "IQ2_XXS",
                                                         "IQ2_XS",
                                                         "IQ3_XXS",
                                                         "IQ1_S",
                                                         "IQ4_NL",
                                                         "IQ3_S",
                                                         "IQ2_S",
                                                         "IQ4_XS",
                                                         "I8",
                                                         "I16",
                                                         "I32",
                                                         "I64",
                                                         "F64",
                                                         "IQ1_M",
                                                         "BF16",
                                                         "removed type 31",
                                                         "removed type 32",
                                                         "removed type 33",
                                                         "TQ1_0",
                                                         "TQ2_0",
                                                         "removed type 36",
                                                         "removed type 37",
                                                         "removed type 38",
                                                         "MXFP4",
                                                         "NVFP4"};

}  // namespace

const DTypeInfo& info(DType type) { return types[static_cast<size_t>(type)]; }

std::optional<DType> dtype_from_ggml(uint32_t ggml_type) {
  for (size_t i = 0; i < types.size(); ++i)
    if (static_cast<uint32_t>(types[i].ggml_type) == ggml_type) return static_cast<DType>(i);
  return std::nullopt;
}

std::string_view ggml_type_name(uint32_t ggml_type) {
  return ggml_type < ggml_names.size() ? ggml_names[ggml_type] : std::string_view("unknown type");
}

float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t exponent = (h >> 10) & 31;
  uint32_t mantissa = h & 0x3ff;
  if (exponent == 31) return __builtin_bit_cast(float, sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return __builtin_bit_cast(float, sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}

uint16_t float_to_half(float f) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, f);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00 | static_cast<uint16_t>((magnitude >> 13) & 0x1ff);
  if (magnitude >= 0x47800000) return sign | 0x7c00;  // 65536 and above, infinity
  if (magnitude < 0x38800000) {
    // Subnormal in half: adding 0.5 puts the rounded value in the low bits of the mantissa.
    const float shifted = __builtin_bit_cast(float, magnitude) + 0.5f;
    return sign | static_cast<uint16_t>(__builtin_bit_cast(uint32_t, shifted) - 0x3f000000u);
  }
  const uint32_t odd = (magnitude >> 13) & 1;
  return sign | static_cast<uint16_t>((magnitude - 0x38000000u + 0xfff + odd) >> 13);
}

uint16_t float_to_bf16(float f) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, f);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace sluice
