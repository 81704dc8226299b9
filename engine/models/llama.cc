// Llama (Touvron et al., arXiv:2302.13971) as a Graph; also Mistral and SmolLM2. GGUF stores Q and K
// permuted for rotation of pairs.
#include <cmath>

#include "core/error.h"
#include "engine/models/builder.h"
#include "engine/models/models.h"

namespace sluice::engine {
namespace {

Status add_layer(GraphBuilder& b, uint32_t layer, float eps) {
  Graph& g = b.graph();
  const std::string prefix = "blk." + std::to_string(layer) + ".";

  AttentionInOp in;
  in.layer = layer;
  in.eps = eps;
  SLUICE_ASSIGN_OR_RETURN(in.norm, b.tensor(prefix + "attn_norm.weight"));
  SLUICE_ASSIGN_OR_RETURN(in.wq, b.tensor(prefix + "attn_q.weight"));
  SLUICE_ASSIGN_OR_RETURN(in.wk, b.tensor(prefix + "attn_k.weight"));
  SLUICE_ASSIGN_OR_RETURN(in.wv, b.tensor(prefix + "attn_v.weight"));
  SLUICE_ASSIGN_OR_RETURN(in.bq, b.optional_tensor(prefix + "attn_q.bias"));
  SLUICE_ASSIGN_OR_RETURN(in.bk, b.optional_tensor(prefix + "attn_k.bias"));
  SLUICE_ASSIGN_OR_RETURN(in.bv, b.optional_tensor(prefix + "attn_v.bias"));
  g.ops.push_back(in);

  AttentionOp attention;
  attention.layer = layer;
  SLUICE_ASSIGN_OR_RETURN(attention.scale,
                          b.key_or<float>("attention.scale", 1 / std::sqrt(static_cast<float>(g.head_dim))));
  g.ops.push_back(attention);

  AttentionOutOp out;
  SLUICE_ASSIGN_OR_RETURN(out.wo, b.tensor(prefix + "attn_output.weight"));
  SLUICE_ASSIGN_OR_RETURN(out.bo, b.optional_tensor(prefix + "attn_output.bias"));
  g.ops.push_back(out);

  FfnOp ffn;
  ffn.eps = eps;
  SLUICE_ASSIGN_OR_RETURN(ffn.norm, b.tensor(prefix + "ffn_norm.weight"));
  SLUICE_ASSIGN_OR_RETURN(ffn.gate, b.tensor(prefix + "ffn_gate.weight"));
  SLUICE_ASSIGN_OR_RETURN(ffn.up, b.tensor(prefix + "ffn_up.weight"));
  SLUICE_ASSIGN_OR_RETURN(ffn.down, b.tensor(prefix + "ffn_down.weight"));
  g.ops.push_back(ffn);
  return {};
}

}  // namespace

Result<Graph> build_llama(const storage::GgufFile& gguf, std::span<const FileId> files) {
  GraphBuilder b(gguf, files);
  SLUICE_RETURN_IF_ERROR(b.read_sizes());
  SLUICE_ASSIGN_OR_RETURN(const auto experts, b.key_or<uint32_t>("expert_count", 0));
  if (experts > 0)
    return error(Code::unsupported, "{}: llama with {} experts (Mixtral) is not supported", gguf.path(), experts);
  SLUICE_ASSIGN_OR_RETURN(const float eps, b.key<float>("attention.layer_norm_rms_epsilon"));

  Graph& g = b.graph();
  SLUICE_ASSIGN_OR_RETURN(RopeSpec rope, b.rope({}));
  g.ropes.push_back(std::move(rope));
  SLUICE_ASSIGN_OR_RETURN(const TensorId table, b.tensor("token_embd.weight"));
  g.ops.push_back(EmbedOp{table, 1.0f});
  for (uint32_t layer = 0; layer < g.n_layers; ++layer) SLUICE_RETURN_IF_ERROR(add_layer(b, layer, eps));

  SLUICE_RETURN_IF_ERROR(b.add_head(table, eps));
  return b.finish();
}

}  // namespace sluice::engine
