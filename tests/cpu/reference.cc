#include "tests/cpu/reference.h"

#include <cmath>
#include <cstring>

namespace sluice::test {
namespace {

template <class Block>
Block read_block(const std::byte* from, uint64_t index) {
  Block block;
  std::memcpy(&block, from + index * sizeof(Block), sizeof(Block));
  return block;
}

Weight plain(double value) { return {value, 0}; }

Weight decode_q4_0(const BlockQ4_0& b, uint64_t i) {
  const int nibble = i < 16 ? b.nibbles[i] % 16 : b.nibbles[i - 16] / 16;
  return plain(half_value(b.d) * (nibble - 8));
}

Weight decode_q4_1(const BlockQ4_1& b, uint64_t i) {
  const int nibble = i < 16 ? b.nibbles[i] % 16 : b.nibbles[i - 16] / 16;
  return {half_value(b.d) * nibble, half_value(b.m)};
}

int five_bits(const uint8_t* high, const uint8_t* nibbles, uint64_t i) {
  const int nibble = i < 16 ? nibbles[i] % 16 : nibbles[i - 16] / 16;
  return nibble + 16 * (high[i / 8] >> (i % 8) & 1);
}

Weight decode_q5_0(const BlockQ5_0& b, uint64_t i) {
  return plain(half_value(b.d) * (five_bits(b.high, b.nibbles, i) - 16));
}

Weight decode_q5_1(const BlockQ5_1& b, uint64_t i) {
  return {half_value(b.d) * five_bits(b.high, b.nibbles, i), half_value(b.m)};
}

Weight decode_q4_k(const BlockQ4_K& b, uint64_t i) {
  const uint64_t s = i / 32;
  int scale, min;
  if (s < 4) {
    scale = b.scales[s] & 63;
    min = b.scales[s + 4] & 63;
  } else {
    scale = (b.scales[s + 4] & 15) | (b.scales[s - 4] >> 6) << 4;
    min = (b.scales[s + 4] >> 4) | (b.scales[s] >> 6) << 4;
  }
  const int byte = b.nibbles[32 * (s / 2) + i % 32];
  return {half_value(b.d) * scale * (s % 2 == 0 ? byte % 16 : byte / 16), -half_value(b.dmin) * min};
}

Weight decode_q6_k(const BlockQ6_K& b, uint64_t i) {
  const uint64_t h = i / 128, l = i % 32;
  int q = 0;
  switch (i % 128 / 32) {
    case 0: q = (b.low[64 * h + l] & 15) | (b.high[32 * h + l] >> 0 & 3) << 4; break;
    case 1: q = (b.low[64 * h + 32 + l] & 15) | (b.high[32 * h + l] >> 2 & 3) << 4; break;
    case 2: q = (b.low[64 * h + l] >> 4) | (b.high[32 * h + l] >> 4 & 3) << 4; break;
    case 3: q = (b.low[64 * h + 32 + l] >> 4) | (b.high[32 * h + l] >> 6) << 4; break;
  }
  return plain(half_value(b.d) * b.scales[i / 16] * (q - 32));
}

Weight decode_one(DType type, const std::byte* from, uint64_t i) {
  switch (type) {
    case DType::f32: return plain(read_block<float>(from, i));
    case DType::f16: return plain(half_value(read_block<uint16_t>(from, i)));
    case DType::bf16: {
      const uint32_t bits = static_cast<uint32_t>(read_block<uint16_t>(from, i)) << 16;
      float value;
      std::memcpy(&value, &bits, 4);
      return plain(value);
    }
    case DType::q4_0: return decode_q4_0(read_block<BlockQ4_0>(from, i / 32), i % 32);
    case DType::q4_1: return decode_q4_1(read_block<BlockQ4_1>(from, i / 32), i % 32);
    case DType::q5_0: return decode_q5_0(read_block<BlockQ5_0>(from, i / 32), i % 32);
    case DType::q5_1: return decode_q5_1(read_block<BlockQ5_1>(from, i / 32), i % 32);
    case DType::q8_0: {
      const auto b = read_block<BlockQ8_0>(from, i / 32);
      return plain(half_value(b.d) * b.values[i % 32]);
    }
    case DType::q4_k: return decode_q4_k(read_block<BlockQ4_K>(from, i / 256), i % 256);
    case DType::q6_k: return decode_q6_k(read_block<BlockQ6_K>(from, i / 256), i % 256);
    case DType::i32: break;
  }
  std::abort();
}

void write_half(std::byte* at, uint16_t h) { std::memcpy(at, &h, 2); }

void random_bytes(std::byte* out, size_t n, Rng& rng, bool extreme) {
  static constexpr uint8_t ends[] = {0x00, 0xff, 0x80, 0x7f};
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<std::byte>(extreme ? ends[rng() % 4] : rng() % 256);
}

uint16_t random_scale(Rng& rng) {
  const uint16_t h = random_half(rng, 0.001, 0.1);
  return rng() % 4 == 0 ? h | 0x8000 : h;
}

}  // namespace

std::vector<cpu::Isa> supported_isas() {
  std::vector<cpu::Isa> isas;
  for (const cpu::Isa isa : {cpu::Isa::scalar, cpu::Isa::avx2, cpu::Isa::avx512})
    if (cpu::supported(isa)) isas.push_back(isa);
  return isas;
}

ExactBuffer::ExactBuffer(size_t bytes, size_t shift)
    : bytes_(bytes), shift_(shift), memory_(new std::byte[bytes + shift]) {}

double half_value(uint16_t h) {
  const double sign = h & 0x8000 ? -1 : 1;
  const int exponent = h >> 10 & 31, mantissa = h & 1023;
  if (exponent == 31) return mantissa != 0 ? std::nan("") : sign * HUGE_VAL;
  return exponent == 0 ? sign * std::ldexp(mantissa, -24) : sign * std::ldexp(1024 + mantissa, exponent - 25);
}

// Halves of one sign are ordered like their bits.
uint16_t random_half(Rng& rng, double low, double high) {
  while (true) {
    const auto h = static_cast<uint16_t>(rng() % 0x7c00);
    if (half_value(h) >= low && half_value(h) <= high) return h;
  }
}

bool has_minimum(DType type) { return type == DType::q4_1 || type == DType::q5_1 || type == DType::q4_k; }

void random_weights(DType type, uint64_t n, Rng& rng, std::byte* out, bool extreme) {
  if (type == DType::f32 || type == DType::f16 || type == DType::bf16) {
    for (uint64_t i = 0; i < n; ++i) {
      const float f = random_floats(1, rng)[0];
      const uint16_t h = type == DType::f16 ? float_to_half(f) : float_to_bf16(f);
      if (type == DType::f32) std::memcpy(out + 4 * i, &f, 4);
      else write_half(out + 2 * i, h);
    }
    return;
  }
  const DTypeInfo& t = info(type);
  for (uint64_t i = 0; i < n / t.block_elements; ++i, out += t.block_bytes) {
    random_bytes(out, t.block_bytes, rng, extreme);
    write_half(out + (type == DType::q6_k ? offsetof(BlockQ6_K, d) : 0), random_scale(rng));
    if (has_minimum(type)) write_half(out + 2, random_scale(rng));
  }
}

std::vector<Weight> decode(DType type, const std::byte* from, uint64_t n) {
  std::vector<Weight> out(n);
  for (uint64_t i = 0; i < n; ++i) out[i] = decode_one(type, from, i);
  return out;
}

std::vector<float> random_floats(size_t n, Rng& rng, double scale) {
  std::uniform_real_distribution<double> uniform(-scale, scale);
  std::vector<float> out(n);
  for (float& f : out) f = static_cast<float>(uniform(rng));
  return out;
}

}  // namespace sluice::test
