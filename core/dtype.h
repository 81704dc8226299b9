// Element types and the layout of quantized blocks, as ggml files hold them (ggml-common.h of
// llama.cpp is the reference for the layouts).
//
// A row of n elements is n/block_elements blocks of block_bytes; n is always a multiple of
// block_elements. All multi-byte fields are little endian; half floats are IEEE binary16.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace sluice {

enum class DType : uint8_t { f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q6_k, i32 };

struct DTypeInfo {
  std::string_view name;    // "Q4_1"
  uint32_t block_elements;  // values in one block; 1 for plain types
  uint32_t block_bytes;
  int ggml_type;  // the id in GGUF files
};

const DTypeInfo& info(DType type);
std::optional<DType> dtype_from_ggml(uint32_t ggml_type);
// The name of a ggml type that this build does not read, for messages: "Q5_K", "removed type 4", …
std::string_view ggml_type_name(uint32_t ggml_type);

// Bytes of `elements` values; elements must be a multiple of the block.
inline uint64_t row_bytes(DType type, uint64_t elements) {
  const DTypeInfo& t = info(type);
  return elements / t.block_elements * t.block_bytes;
}

// w[i] = d * (nibble - 8); byte j holds value j in its low nibble and j+16 in its high one.
struct BlockQ4_0 {
  uint16_t d;
  uint8_t nibbles[16];
};
// w[i] = d * nibble + m, same order of nibbles.
struct BlockQ4_1 {
  uint16_t d, m;
  uint8_t nibbles[16];
};
// w[i] = d * (q - 16), q of 5 bits: the nibble of value i as in BlockQ4_0, and above it bit i of `high`
// (bit i % 8 of byte i / 8).
struct BlockQ5_0 {
  uint16_t d;
  uint8_t high[4];
  uint8_t nibbles[16];
};
// w[i] = d * q + m, q as in BlockQ5_0.
struct BlockQ5_1 {
  uint16_t d, m;
  uint8_t high[4];
  uint8_t nibbles[16];
};
// w[i] = d * value.
struct BlockQ8_0 {
  uint16_t d;
  int8_t values[32];
};
// 8 sub-blocks of 32: w = d * scale_s * nibble - dmin * min_s. Scales and mins are 6 bits each:
// s < 4: scale = scales[s] & 63, min = scales[s+4] & 63; s >= 4: scale = (scales[s+4] & 15) |
// (scales[s-4] >> 6) << 4, min = (scales[s+4] >> 4) | (scales[s] >> 6) << 4. Bytes 32*k..32*k+31 of
// `nibbles` hold sub-block 2k in the low nibbles and 2k+1 in the high ones.
struct BlockQ4_K {
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t nibbles[128];
};
// 16 sub-blocks of 16: w = d * scale_s * (q - 32), q of 6 bits: low 4 in `low`, high 2 in `high`. For
// each half h of 128 values and l in 0..31: value h*128+l takes low[64h+l]&15 and high[32h+l]>>0&3,
// +32: low[64h+32+l]&15 and high>>2&3, +64: low[64h+l]>>4 and high>>4&3, +96: low[64h+32+l]>>4 and
// high>>6.
struct BlockQ6_K {
  uint8_t low[128];
  uint8_t high[64];
  int8_t scales[16];
  uint16_t d;
};
static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ8_0) == 34);
static_assert(sizeof(BlockQ5_0) == 22 && sizeof(BlockQ5_1) == 24);
static_assert(sizeof(BlockQ4_K) == 144 && sizeof(BlockQ6_K) == 210);

// IEEE binary16 <-> float, round to nearest even; every finite, infinite and NaN value is covered.
float half_to_float(uint16_t h);
uint16_t float_to_half(float f);
inline float bf16_to_float(uint16_t b) { return __builtin_bit_cast(float, static_cast<uint32_t>(b) << 16); }
uint16_t float_to_bf16(float f);

}  // namespace sluice
