// Small random models: Graphs with the file that holds their weights, and what they compute, in double
// precision and without any of the code under test.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/graph.h"

namespace sluice::testing {

struct TinyOptions {
  uint32_t n_layers = 3, hidden = 64, n_heads = 4, n_kv_heads = 2, head_dim = 16, ffn = 96, n_vocab = 97;
  DType dtype = DType::f32;        // of the matrices: f32, f16, q8_0, q4_0 or q6_k
  uint32_t experts = 0, used = 2;  // with experts every layer routes
  bool tied = false;               // the head reads the embedding table
  bool biases = false, head_norms = false;
  bool pairs = true;  // of the rotary embedding
  bool post_norms = false;
  Activation activation = Activation::silu;
  uint32_t window = 0;
  bool alternate = false;  // odd layers have no window and a rotary embedding of their own
  float softcap = 0, logit_softcap = 0;
  uint32_t gap = 0;  // bytes left out between tensors: beyond io_unit nothing shares a block
  uint64_t seed = 1;
};

struct TinyModel {
  Graph graph;  // tensors in file 0
  std::vector<std::byte> file;
};
TinyModel make_tiny(const TinyOptions& options);

// Weights of one tensor (of one expert), row by row.
std::vector<double> decode(const TinyModel& model, TensorId id, uint32_t expert = 0);

// A token and the earlier cells (indices, itself included) that it sees.
struct TinyCell {
  int32_t token = 0;
  int32_t position = 0;
  std::vector<uint32_t> sees;
};
struct TinyResult {
  std::vector<std::vector<double>> logits;               // by cell
  std::vector<std::vector<std::vector<double>>> hidden;  // by layer, by cell: after the layer
};
TinyResult tiny_forward(const TinyModel& model, const std::vector<TinyCell>& cells);
// Cells of a plain sequence.
std::vector<TinyCell> linear_cells(const std::vector<int32_t>& tokens);

}  // namespace sluice::testing
