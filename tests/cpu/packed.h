// Random products whose activations lie packed in groups, and what packed integers stand for.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/bytes.h"
#include "cpu/isa.h"
#include "tests/cpu/reference.h"

namespace sluice::test {

inline constexpr DType packed_types[] = {DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1,
                                         DType::q8_0, DType::q4_k, DType::q6_k};

struct Packed {
  Packed(const float* x, uint32_t tokens, uint32_t cols, ActFormat format)
      : bytes(cpu::groups_bytes(format, tokens, cols) + 64),
        data(reinterpret_cast<std::byte*>(align_up(address(), 64))) {
    cpu::kernels(cpu::Isa::scalar).quantize({x, format, tokens, cols, data}, {});
  }
  Packed(const Packed&) = delete;
  uint64_t address() const { return reinterpret_cast<uint64_t>(bytes.data()); }
  std::vector<std::byte> bytes;
  std::byte* data;
};

// A random product.
struct Product {
  Product(DType t, uint32_t n_rows, uint32_t n_cols, uint32_t n_tokens, Rng& rng, ActFormat f = ActFormat::bf16)
      : type(t),
        format(f),
        rows(n_rows),
        cols(n_cols),
        tokens(n_tokens),
        weights(n_rows * row_bytes(t, n_cols), rng() % 16),
        x(random_floats(size_t{n_tokens} * n_cols, rng)),
        packed(x.data(), n_tokens, n_cols, f) {
    random_weights(type, uint64_t{rows} * cols, rng, weights.data());
  }
  MatmulCall call(float* out) const {
    return {weights.data(), type, rows, cols, packed.data, format, tokens, out, rows, nullptr, false};
  }
  DType type;
  ActFormat format;
  uint32_t rows, cols, tokens;
  ExactBuffer weights;
  std::vector<float> x;
  Packed packed;
};

inline uint32_t random_cols(DType type, Rng& rng) {
  const uint32_t block = info(type).block_elements;
  return block * (1 + rng() % (block == 32 ? 70 : 9));
}

using Outputs = std::vector<float>;

inline bool same_bits(const Outputs& a, const Outputs& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

// Groups of wide8, as the values that they stand for.
struct Wide8 {
  Wide8(const std::byte* from, uint32_t n_cols) : data(from), cols(n_cols) {}
  const std::byte* block(uint32_t row, uint32_t col) const {
    return data + row / act_group * cpu::group_bytes(ActFormat::wide8, cols) + col / 256 * (size_t{256} * 64 + 256);
  }
  uint32_t cols_of(uint32_t col) const { return std::min(256u, cols - col / 256 * 256); }
  float scale(uint32_t row, uint32_t col) const {
    float value;
    std::memcpy(&value, block(row, col) + align_up(cols_of(col), 64) * 64 + row % 64 * 4, 4);
    return value;
  }
  // Columns up to the next multiple of 64 are there too.
  int weight(uint32_t row, uint32_t col) const {
    const uint32_t step = col % 256 / 64, r = row % 64;
    return static_cast<int8_t>(block(row, col)[step * 4096 + r / 16 * 1024 + r % 16 * 64 + col % 64]);
  }
  int activation(uint32_t token, uint32_t col) const {
    const uint32_t step = col % 256 / 64, t = token % 64;
    return static_cast<int8_t>(
        block(token, col)[step * 4096 + t / 16 * 1024 + col % 64 / 4 * 64 + t % 16 * 4 + col % 4]);
  }
  const std::byte* data;
  uint32_t cols;
};

}  // namespace sluice::test
