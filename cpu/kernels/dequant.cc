#include "cpu/kernels/dequant.h"

#include "cpu/kernels/simd.h"

namespace sluice::cpu::SLUICE_ISA {
namespace {

[[gnu::always_inline]] inline float half(const std::byte* p) { return half_to_float(I{} + load<uint16_t>(p))[0]; }

void from_f16(const std::byte* from, uint32_t n, float* out) {
  uint32_t i = 0;
  for (; i + lanes <= n; i += lanes) store(out + i, load_halves(from + uint64_t{2} * i));
  for (; i < n; ++i) out[i] = half(from + uint64_t{2} * i);
}

void from_bf16(const std::byte* from, uint32_t n, float* out) {
  uint32_t i = 0;
  for (; i + lanes <= n; i += lanes) store(out + i, load_words(from + uint64_t{2} * i) << 16);
  for (; i < n; ++i) store(out + i, uint32_t{load<uint16_t>(from + uint64_t{2} * i)} << 16);
}

// One 4-bit value of each of n bytes, from bit `shift` on, as scale * (value + offset) + min.
[[gnu::always_inline]] inline void from_nibbles(const std::byte* nibbles, uint32_t n, int shift, int offset,
                                                float scale, float min, float* out) {
  for (uint32_t j = 0; j < n; j += lanes) {
    const I value = ((load_bytes(nibbles + j) >> shift) & 15) + offset;
    store(out + j, scale * to_float(value) + min);
  }
}

void from_q4_0(const std::byte* block, float* out) {
  const float d = half(block);
  from_nibbles(block + 2, 16, 0, -8, d, 0.0f, out);
  from_nibbles(block + 2, 16, 4, -8, d, 0.0f, out + 16);
}

void from_q4_1(const std::byte* block, float* out) {
  const float d = half(block), m = half(block + 2);
  from_nibbles(block + 4, 16, 0, 0, d, m, out);
  from_nibbles(block + 4, 16, 4, 0, d, m, out + 16);
}

// Values 0..31 of a block of 5 bits, as scale * (value + offset) + min.
[[gnu::always_inline]] inline void from_five_bits(const std::byte* high, const std::byte* nibbles, int offset,
                                                  float scale, float min, float* out) {
  const auto bits = load<uint32_t>(high);
  I lane;
  for (uint32_t i = 0; i < lanes; ++i) lane[i] = static_cast<int32_t>(i);
  for (uint32_t j = 0; j < 32; j += lanes) {
    const I fifth = ((I{} + static_cast<int32_t>(bits >> j)) >> lane & 1) << 4;
    const I nibble = (load_bytes(nibbles + j % 16) >> (j < 16 ? 0 : 4)) & 15;
    store(out + j, scale * to_float((nibble | fifth) + offset) + min);
  }
}

void from_q5_0(const std::byte* block, float* out) {
  from_five_bits(block + 2, block + 6, -16, half(block), 0.0f, out);
}

void from_q5_1(const std::byte* block, float* out) {
  from_five_bits(block + 4, block + 8, 0, half(block), half(block + 2), out);
}

void from_q8_0(const std::byte* block, float* out) {
  const float d = half(block);
  for (uint32_t j = 0; j < 32; j += lanes) store(out + j, d * to_float((load_bytes(block + 2 + j) << 24) >> 24));
}

void from_q4_k(const std::byte* block, float* out) {
  const Q4KScales scales = q4_k_scales(block);
  for (uint32_t s = 0; s < 8; ++s)
    from_nibbles(block + 16 + uint64_t{32} * (s / 2), 32, static_cast<int>(4 * (s % 2)), 0, scales.scale[s],
                 scales.min[s], out + uint64_t{32} * s);
}

void from_q6_k(const std::byte* block, float* out) {
  const float d = half(block + 208);
  for (int s = 0; s < 16; ++s) {
    const int half_block = s / 8, part = s % 8 / 2, column = 16 * (s % 2);
    const std::byte* low = block + 64 * half_block + 32 * (part % 2) + column;
    const std::byte* high = block + 128 + 32 * half_block + column;
    const float scale = d * static_cast<float>(load<int8_t>(block + 192 + s));
    for (uint32_t j = 0; j < 16; j += lanes) {
      const I low_bits = (load_bytes(low + j) >> (4 * (part / 2))) & 15;
      const I high_bits = (load_bytes(high + j) >> (2 * part)) & 3;
      store(out + 16 * s + j, scale * to_float((low_bits | high_bits << 4) - 32));
    }
  }
}

template <uint32_t elements, uint32_t block_bytes, void (*one)(const std::byte*, float*)>
void all_blocks(const std::byte* from, uint32_t n, float* out) {
  for (uint32_t i = 0; i + elements <= n; i += elements, from += block_bytes) one(from, out + i);
}

}  // namespace

Q4KScales q4_k_scales(const std::byte* block) {
  const float d = sluice::half_to_float(load<uint16_t>(block)), dmin = sluice::half_to_float(load<uint16_t>(block + 2));
  // Six bits each: of the first four in the first eight bytes, of the others four in the last ones and two above those.
  const auto first = load<uint32_t>(block + 4), second = load<uint32_t>(block + 8), third = load<uint32_t>(block + 12);
  const uint32_t scale[2] = {first & 0x3f3f3f3f, (third & 0x0f0f0f0f) | (first >> 2 & 0x30303030)};
  const uint32_t min[2] = {second & 0x3f3f3f3f, (third >> 4 & 0x0f0f0f0f) | (second >> 2 & 0x30303030)};
  uint8_t scales[8], mins[8];
  __builtin_memcpy(scales, scale, sizeof(scales));
  __builtin_memcpy(mins, min, sizeof(mins));
  Q4KScales out;
  for (uint32_t s = 0; s < 8; ++s) out.scale[s] = d * static_cast<float>(scales[s]);
  for (uint32_t s = 0; s < 8; ++s) out.min[s] = -(dmin * static_cast<float>(mins[s]));
  return out;
}

uint64_t weight_bytes(DType type, uint64_t elements) {
  switch (type) {
    case DType::f16:
    case DType::bf16: return elements * 2;
    case DType::q4_0: return elements / 32 * 18;
    case DType::q4_1: return elements / 32 * 20;
    case DType::q5_0: return elements / 32 * 22;
    case DType::q5_1: return elements / 32 * 24;
    case DType::q8_0: return elements / 32 * 34;
    case DType::q4_k: return elements / 256 * 144;
    case DType::q6_k: return elements / 256 * 210;
    case DType::f32:
    case DType::i32: break;
  }
  return elements * 4;
}

void dequantize(DType type, const std::byte* from, uint32_t n, float* out) {
  switch (type) {
    case DType::f32: __builtin_memcpy(out, from, uint64_t{n} * 4); return;
    case DType::f16: return from_f16(from, n, out);
    case DType::bf16: return from_bf16(from, n, out);
    case DType::q4_0: return all_blocks<32, 18, from_q4_0>(from, n, out);
    case DType::q4_1: return all_blocks<32, 20, from_q4_1>(from, n, out);
    case DType::q5_0: return all_blocks<32, 22, from_q5_0>(from, n, out);
    case DType::q5_1: return all_blocks<32, 24, from_q5_1>(from, n, out);
    case DType::q8_0: return all_blocks<32, 34, from_q8_0>(from, n, out);
    case DType::q4_k: return all_blocks<256, 144, from_q4_k>(from, n, out);
    case DType::q6_k: return all_blocks<256, 210, from_q6_k>(from, n, out);
    case DType::i32: break;
  }
  __builtin_trap();
}

}  // namespace sluice::cpu::SLUICE_ISA
