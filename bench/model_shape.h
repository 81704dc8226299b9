// Shapes of well-known models, and the tensors that a file of such a model holds.
//
// The shapes are those of the models' own configurations; the types of the tensors are the mix that
// llama.cpp's quantizer calls Q4_K_M (llama-quant.cpp): Q4_K, but Q6_K for the output matrix and, in the
// layers that get more bits, for attn_v and ffn_down; norms F32. One difference: of models with 80 layers
// that quantizer makes attn_v Q5_K where it would be Q4_K; here it stays Q4_K.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"

namespace sluice::bench {

struct ModelShape {
  std::string name;
  uint32_t hidden_size = 0, n_layers = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0, ffn_size = 0;
  uint32_t n_vocab = 0, context_length = 8192;
  bool tied = false;  // the output matrix is the embedding table
};

// "1b" (Llama 3.2 1B), "8b" and "70b" (Llama 3), and "tiny", a few hundred KB with all the same types.
std::optional<ModelShape> shape_named(std::string_view name);

struct ShapeTensor {
  std::string name;
  DType dtype = DType::f32;
  uint64_t cols = 0, rows = 1;  // a vector has one row
  bool is_vector() const { return rows == 1; }
  uint64_t bytes() const { return rows * row_bytes(dtype, cols); }
};

// In the order of the file. Layers whose index is in the first or last eighth, or every third between
// them, get more bits.
std::vector<ShapeTensor> tensors_of(const ModelShape& shape);

}  // namespace sluice::bench
