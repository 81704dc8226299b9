// Graph: a model as immutable data: the sub-layer operations in order, the tensors they read and the
// state they touch. An architecture is a function from a config to a Graph (engine/models/); nothing
// here executes anything.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "core/block.h"
#include "core/dtype.h"
#include "core/kernel.h"

namespace sluice {

struct TensorId {
  uint32_t value = UINT32_MAX;
  bool valid() const { return value != UINT32_MAX; }
  auto operator<=>(const TensorId&) const = default;
};

// A matrix of `rows` output rows by `cols`, or `experts` of them one behind the other; a vector has
// one row. `extent` is where all of it lies in its file.
struct TensorSpec {
  std::string name;
  DType dtype = DType::f32;
  uint32_t rows = 1, cols = 0, experts = 1;
  Extent extent;
  uint64_t row_size() const { return row_bytes(dtype, cols); }
};

// One rotary embedding: angle of pair i at position p is p * freqs[i]; cos and sin times scale.
struct RopeSpec {
  bool pairs = true;  // (2i, 2i+1); otherwise (i, i + n_rot/2)
  uint32_t n_rot = 0;
  float scale = 1;
  std::vector<float> freqs;
};

// In what follows h is the residual stream, n_tokens x hidden_size; an invalid TensorId means absent.

// h = scale * row of `table` for each token. The table's rows are gathered, never fetched whole.
struct EmbedOp {
  TensorId table;
  float scale = 1;
};

// x = rms(h; norm); q, k, v = W x (+ b); q, k normed per head where q_norm, k_norm; rotated; k and v
// appended to the KV of `layer`.
struct AttentionInOp {
  uint32_t layer = 0, rope = 0;
  float eps = 1e-5f;
  TensorId norm, wq, wk, wv, bq, bk, bv, q_norm, k_norm;
};

// Attention of q over the KV of `layer`.
struct AttentionOp {
  uint32_t layer = 0;
  float scale = 1, softcap = 0;
  uint32_t window = 0;
};

// y = W o (+ b); h += y, or rms(y; post_norm) where there is one.
struct AttentionOutOp {
  float eps = 1e-5f;
  TensorId wo, bo, post_norm;
};

// y = down(act(gate x) * up x), x = rms(h; norm); h += y, or rms(y; post_norm) where there is one.
struct FfnOp {
  float eps = 1e-5f;
  Activation activation = Activation::silu;
  TensorId norm, gate, up, down, post_norm;
};

// x = rms(h; norm); chooses `used` of n_experts for each token from W x.
struct RouteOp {
  float eps = 1e-5f;
  uint32_t used = 0;
  TensorId norm, router;
};

// h += sum over the chosen experts of weight * FFN_e(x), x and the choice from the RouteOp before it.
// An expert is one block: its slices of gate, up and down.
struct ExpertsOp {
  Activation activation = Activation::silu;
  TensorId gate, up, down;
};

// logits = W rms(h; norm), for the rows that want them; softcap * tanh(logit / softcap) where softcap > 0.
struct HeadOp {
  float eps = 1e-5f, softcap = 0;
  TensorId norm, output;
};

using Op = std::variant<EmbedOp, AttentionInOp, AttentionOp, AttentionOutOp, FfnOp, RouteOp, ExpertsOp, HeadOp>;
std::string_view name(const Op& op);

// The tensors of an op that are read by products, in the order of reading, and those that are small and
// always read whole (norms, biases).
std::vector<TensorId> matrices(const Op& op);
std::vector<TensorId> vectors(const Op& op);

struct Graph {
  std::string architecture, name;
  uint32_t hidden_size = 0, n_vocab = 0, n_layers = 0, context_length = 0;
  uint32_t n_heads = 0, n_kv_heads = 0, head_dim = 0;
  std::vector<TensorSpec> tensors;
  std::vector<RopeSpec> ropes;
  std::vector<Op> ops;

  const TensorSpec& tensor(TensorId id) const { return tensors[id.value]; }
  // Of one layer and one kind (K or V), for one token.
  uint64_t kv_values() const { return uint64_t{n_kv_heads} * head_dim; }
};

// Checks that every op's tensors exist, have the shapes that the op needs and that the ops are in an
// order that can run; the error names op, layer and tensor.
Status validate(const Graph& graph);

}  // namespace sluice
