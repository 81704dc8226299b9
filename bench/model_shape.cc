#include "bench/model_shape.h"

#include <array>

namespace sluice::bench {
namespace {

// name, hidden, layers, heads, kv heads, head, ffn, vocabulary, context, tied
const std::array<ModelShape, 4> shapes = {{
    {"1b", 2048, 16, 32, 8, 64, 8192, 128256, 131072, true},
    {"8b", 4096, 32, 32, 8, 128, 14336, 128256, 8192, false},
    {"70b", 8192, 80, 64, 8, 128, 28672, 128256, 8192, false},
    {"tiny", 256, 8, 4, 2, 64, 512, 320, 512, false},
}};

bool more_bits(uint32_t layer, uint32_t n_layers) {
  const uint32_t eighth = n_layers / 8;
  return layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2;
}

void add_layer(std::vector<ShapeTensor>& to, const ModelShape& s, uint32_t layer) {
  const std::string prefix = "blk." + std::to_string(layer) + ".";
  const DType more = more_bits(layer, s.n_layers) ? DType::q6_k : DType::q4_k;
  const uint64_t q_size = uint64_t{s.n_heads} * s.head_dim, kv_size = uint64_t{s.n_kv_heads} * s.head_dim;
  to.push_back({prefix + "attn_norm.weight", DType::f32, s.hidden_size, 1});
  to.push_back({prefix + "attn_q.weight", DType::q4_k, s.hidden_size, q_size});
  to.push_back({prefix + "attn_k.weight", DType::q4_k, s.hidden_size, kv_size});
  to.push_back({prefix + "attn_v.weight", more, s.hidden_size, kv_size});
  to.push_back({prefix + "attn_output.weight", DType::q4_k, q_size, s.hidden_size});
  to.push_back({prefix + "ffn_norm.weight", DType::f32, s.hidden_size, 1});
  to.push_back({prefix + "ffn_gate.weight", DType::q4_k, s.hidden_size, s.ffn_size});
  to.push_back({prefix + "ffn_up.weight", DType::q4_k, s.hidden_size, s.ffn_size});
  to.push_back({prefix + "ffn_down.weight", more, s.ffn_size, s.hidden_size});
}

}  // namespace

std::optional<ModelShape> shape_named(std::string_view name) {
  for (const ModelShape& shape : shapes)
    if (shape.name == name) return shape;
  return std::nullopt;
}

std::vector<ShapeTensor> tensors_of(const ModelShape& s) {
  std::vector<ShapeTensor> tensors;
  tensors.push_back({"token_embd.weight", s.tied ? DType::q6_k : DType::q4_k, s.hidden_size, s.n_vocab});
  for (uint32_t layer = 0; layer < s.n_layers; ++layer) add_layer(tensors, s, layer);
  tensors.push_back({"output_norm.weight", DType::f32, s.hidden_size, 1});
  if (!s.tied) tensors.push_back({"output.weight", DType::q6_k, s.hidden_size, s.n_vocab});
  return tensors;
}

}  // namespace sluice::bench
