#include "bench/shape_graph.h"

#include <map>

namespace sluice::bench {
namespace {

constexpr uint64_t alignment = 32;

std::map<std::string, TensorId> add_tensors(const ModelShape& shape, Graph& g) {
  std::map<std::string, TensorId> ids;
  uint64_t offset = 0;
  for (const ShapeTensor& t : tensors_of(shape)) {
    ids[t.name] = TensorId{static_cast<uint32_t>(g.tensors.size())};
    g.tensors.push_back({t.name, t.dtype, static_cast<uint32_t>(t.rows), static_cast<uint32_t>(t.cols), 1,
                         Extent{FileId{0}, offset, t.bytes()}});
    offset = (offset + t.bytes() + alignment - 1) / alignment * alignment;
  }
  return ids;
}

void add_layer(const std::map<std::string, TensorId>& ids, uint32_t layer, const ModelShape& shape, Graph& g) {
  const auto at = [&](const char* name) { return ids.at("blk." + std::to_string(layer) + "." + name + ".weight"); };
  AttentionInOp in;
  in.layer = layer;
  in.norm = at("attn_norm");
  in.wq = at("attn_q"), in.wk = at("attn_k"), in.wv = at("attn_v");
  g.ops.push_back(in);
  AttentionOp attention;
  attention.layer = layer;
  attention.scale = 1.0f / static_cast<float>(shape.head_dim);
  g.ops.push_back(attention);
  AttentionOutOp out;
  out.wo = at("attn_output");
  g.ops.push_back(out);
  FfnOp ffn;
  ffn.norm = at("ffn_norm");
  ffn.gate = at("ffn_gate"), ffn.up = at("ffn_up"), ffn.down = at("ffn_down");
  g.ops.push_back(ffn);
}

}  // namespace

Graph graph_of(const ModelShape& shape) {
  Graph g;
  g.architecture = "llama";
  g.name = shape.name;
  g.hidden_size = shape.hidden_size, g.n_vocab = shape.n_vocab, g.n_layers = shape.n_layers;
  g.context_length = shape.context_length;
  g.n_heads = shape.n_heads, g.n_kv_heads = shape.n_kv_heads, g.head_dim = shape.head_dim;
  g.ropes.push_back({true, shape.head_dim, 1, std::vector<float>(shape.head_dim / 2, 1.0f)});
  const auto ids = add_tensors(shape, g);
  g.ops.push_back(EmbedOp{ids.at("token_embd.weight"), 1});
  for (uint32_t layer = 0; layer < shape.n_layers; ++layer) add_layer(ids, layer, shape, g);
  HeadOp head;
  head.norm = ids.at("output_norm.weight");
  head.output = shape.tied ? ids.at("token_embd.weight") : ids.at("output.weight");
  g.ops.push_back(head);
  return g;
}

}  // namespace sluice::bench
