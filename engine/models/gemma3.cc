// Gemma 3 (Gemma Team, arXiv:2503.19786) as a Graph: norms on both sides of attention and FFN, normed
// queries and keys, GELU, and in five layers of six a sliding window with a rotary base of its own.
#include <cmath>

#include "core/error.h"
#include "engine/models/builder.h"
#include "engine/models/models.h"

namespace sluice::engine {
namespace {

constexpr uint32_t global_rope = 0, window_rope = 1;
constexpr uint32_t default_window = 512, default_period = 6;

// What the file says beside the sizes.
struct Settings {
  float eps = 0, score_scale = 0, score_softcap = 0, logit_softcap = 0;
  uint32_t window = 0;
  std::vector<bool> windowed;  // by layer
};

// Which layers have a window: those that a list of booleans marks, or all but the last of each period.
Result<std::vector<bool>> windowed_layers(const GraphBuilder& b, uint32_t n_layers) {
  const std::string name = "attention.sliding_window_pattern", key = b.gguf_key(name);
  const auto* value = b.gguf().find(key);
  if (value != nullptr && value->as_array()) {
    SLUICE_ASSIGN_OR_RETURN(const auto marks, b.gguf().get_array<bool>(key, n_layers));
    if (marks.size() != n_layers)
      return error(Code::corrupt, "{}: {} has {} entries for {} layers", b.gguf().path(), key, marks.size(), n_layers);
    return marks;
  }
  SLUICE_ASSIGN_OR_RETURN(const auto period, b.key_or<uint32_t>(name, default_period));
  std::vector<bool> windowed(n_layers);
  for (uint32_t layer = 0; layer < n_layers; ++layer) windowed[layer] = period == 0 || layer % period < period - 1;
  return windowed;
}

Result<Settings> read_settings(const GraphBuilder& b, const Graph& g) {
  Settings s;
  SLUICE_ASSIGN_OR_RETURN(s.eps, b.key<float>("attention.layer_norm_rms_epsilon"));
  SLUICE_ASSIGN_OR_RETURN(s.score_softcap, b.key_or<float>("attn_logit_softcapping", 0.0f));
  SLUICE_ASSIGN_OR_RETURN(s.logit_softcap, b.key_or<float>("final_logit_softcapping", 0.0f));
  for (const float cap : {s.score_softcap, s.logit_softcap})
    if (!(cap >= 0 && cap < 1e30f)) return error(Code::corrupt, "{}: a softcap is {}", g.name, cap);
  SLUICE_ASSIGN_OR_RETURN(s.window, b.key_or<uint32_t>("attention.sliding_window", default_window));
  SLUICE_ASSIGN_OR_RETURN(s.windowed, windowed_layers(b, g.n_layers));
  if (s.window == 0) s.windowed.assign(g.n_layers, false);
  // The 27B model, of 62 layers, divides by the width that heads have in the others.
  const uint32_t width = g.n_layers == 62 ? g.hidden_size / g.n_heads : g.head_dim;
  SLUICE_ASSIGN_OR_RETURN(s.score_scale, b.key_or<float>("attention.scale", 1 / std::sqrt(static_cast<float>(width))));
  return s;
}

Status add_ropes(GraphBuilder& b) {
  RopeKeys keys;
  keys.pairs = false;
  keys.default_base = 1e6f;
  SLUICE_ASSIGN_OR_RETURN(RopeSpec global, b.rope(keys));
  keys.base = "rope.freq_base_swa";
  keys.default_base = 1e4f;
  keys.scaled = false;
  SLUICE_ASSIGN_OR_RETURN(RopeSpec windowed, b.rope(keys));
  b.graph().ropes = {std::move(global), std::move(windowed)};
  return {};
}

Status add_attention(GraphBuilder& b, const std::string& prefix, uint32_t layer, const Settings& s) {
  Graph& g = b.graph();
  AttentionInOp in;
  in.layer = layer;
  in.rope = s.windowed[layer] ? window_rope : global_rope;
  in.eps = s.eps;
  SLUICE_ASSIGN_OR_RETURN(in.norm, b.tensor(prefix + "attn_norm.weight"));
  SLUICE_ASSIGN_OR_RETURN(in.wq, b.tensor(prefix + "attn_q.weight"));
  SLUICE_ASSIGN_OR_RETURN(in.wk, b.tensor(prefix + "attn_k.weight"));
  SLUICE_ASSIGN_OR_RETURN(in.wv, b.tensor(prefix + "attn_v.weight"));
  SLUICE_ASSIGN_OR_RETURN(in.q_norm, b.tensor(prefix + "attn_q_norm.weight"));
  SLUICE_ASSIGN_OR_RETURN(in.k_norm, b.tensor(prefix + "attn_k_norm.weight"));
  g.ops.push_back(in);
  g.ops.push_back(AttentionOp{layer, s.score_scale, s.score_softcap, s.windowed[layer] ? s.window : 0});

  AttentionOutOp out;
  out.eps = s.eps;
  SLUICE_ASSIGN_OR_RETURN(out.wo, b.tensor(prefix + "attn_output.weight"));
  SLUICE_ASSIGN_OR_RETURN(out.post_norm, b.tensor(prefix + "post_attention_norm.weight"));
  g.ops.push_back(out);
  return {};
}

Status add_ffn(GraphBuilder& b, const std::string& prefix, float eps) {
  FfnOp ffn;
  ffn.eps = eps;
  ffn.activation = Activation::gelu_tanh;
  SLUICE_ASSIGN_OR_RETURN(ffn.norm, b.tensor(prefix + "ffn_norm.weight"));
  SLUICE_ASSIGN_OR_RETURN(ffn.gate, b.tensor(prefix + "ffn_gate.weight"));
  SLUICE_ASSIGN_OR_RETURN(ffn.up, b.tensor(prefix + "ffn_up.weight"));
  SLUICE_ASSIGN_OR_RETURN(ffn.down, b.tensor(prefix + "ffn_down.weight"));
  SLUICE_ASSIGN_OR_RETURN(ffn.post_norm, b.tensor(prefix + "post_ffw_norm.weight"));
  b.graph().ops.push_back(ffn);
  return {};
}

}  // namespace

Result<Graph> build_gemma3(const storage::GgufFile& gguf, std::span<const FileId> files) {
  GraphBuilder b(gguf, files);
  SLUICE_RETURN_IF_ERROR(b.read_sizes());
  Graph& g = b.graph();
  SLUICE_ASSIGN_OR_RETURN(const Settings s, read_settings(b, g));
  SLUICE_RETURN_IF_ERROR(add_ropes(b));
  SLUICE_ASSIGN_OR_RETURN(const TensorId table, b.tensor("token_embd.weight"));
  g.ops.push_back(EmbedOp{table, std::sqrt(static_cast<float>(g.hidden_size))});
  for (uint32_t layer = 0; layer < g.n_layers; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    SLUICE_RETURN_IF_ERROR(add_attention(b, prefix, layer, s));
    SLUICE_RETURN_IF_ERROR(add_ffn(b, prefix, s.eps));
  }
  SLUICE_RETURN_IF_ERROR(b.add_head(table, s.eps, s.logit_softcap));
  return b.finish();
}

}  // namespace sluice::engine
