#include "engine/models/builder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>

#include "core/error.h"

namespace sluice::engine {
namespace {

constexpr uint32_t most_layers = 4096, most_width = 1 << 20, most_vocab = 1 << 22;

Status in_range(const Graph& g, const char* what, uint32_t value, uint32_t most) {
  if (value >= 1 && value <= most) return {};
  return error(Code::corrupt, "{}: {} is {}, expected 1 to {}", g.name, what, value, most);
}

}  // namespace

Status GraphBuilder::read_sizes() {
  SLUICE_ASSIGN_OR_RETURN(const auto architecture, gguf_.get<std::string_view>("general.architecture"));
  graph_.architecture = architecture;
  graph_.name = gguf_.path();
  SLUICE_ASSIGN_OR_RETURN(graph_.hidden_size, key<uint32_t>("embedding_length"));
  SLUICE_ASSIGN_OR_RETURN(graph_.n_layers, key<uint32_t>("block_count"));
  SLUICE_ASSIGN_OR_RETURN(graph_.n_heads, key<uint32_t>("attention.head_count"));
  SLUICE_ASSIGN_OR_RETURN(graph_.n_kv_heads, key_or<uint32_t>("attention.head_count_kv", graph_.n_heads));
  SLUICE_ASSIGN_OR_RETURN(graph_.context_length, key<uint32_t>("context_length"));
  SLUICE_RETURN_IF_ERROR(in_range(graph_, "embedding_length", graph_.hidden_size, most_width));
  SLUICE_RETURN_IF_ERROR(in_range(graph_, "block_count", graph_.n_layers, most_layers));
  SLUICE_RETURN_IF_ERROR(in_range(graph_, "attention.head_count", graph_.n_heads, most_width));
  SLUICE_RETURN_IF_ERROR(in_range(graph_, "attention.head_count_kv", graph_.n_kv_heads, graph_.n_heads));
  SLUICE_ASSIGN_OR_RETURN(graph_.head_dim,
                          key_or<uint32_t>("attention.key_length", graph_.hidden_size / graph_.n_heads));
  SLUICE_ASSIGN_OR_RETURN(const auto value_dim, key_or<uint32_t>("attention.value_length", graph_.head_dim));
  SLUICE_RETURN_IF_ERROR(in_range(graph_, "attention.key_length", graph_.head_dim, 1024));
  if (value_dim != graph_.head_dim)
    return error(Code::unsupported, "{}: keys of {} and values of {} per head; only equal sizes are supported",
                 graph_.name, graph_.head_dim, value_dim);
  SLUICE_ASSIGN_OR_RETURN(const auto* table, gguf_.tensor("token_embd.weight"));
  graph_.n_vocab = static_cast<uint32_t>(std::min<uint64_t>(table->dims[1], UINT32_MAX));
  return in_range(graph_, "rows of token_embd.weight", graph_.n_vocab, most_vocab);
}

Result<TensorId> GraphBuilder::tensor(const std::string& name) {
  SLUICE_ASSIGN_OR_RETURN(const storage::GgufTensor* t, gguf_.tensor(name));
  for (const uint64_t dim : t->dims)
    if (dim > UINT32_MAX) return error(Code::corrupt, "{}: tensor {} has a dimension of {}", graph_.name, name, dim);
  TensorId& made = made_[static_cast<size_t>(t - gguf_.tensors().data())];
  if (made.valid()) return made;
  TensorSpec spec;
  spec.name = name;
  spec.dtype = t->dtype;
  spec.cols = static_cast<uint32_t>(t->dims[0]);
  spec.rows = static_cast<uint32_t>(t->dims[1]);
  spec.experts = static_cast<uint32_t>(t->dims[2]);
  spec.extent = {files_[t->file], t->offset, t->bytes};
  if (t->dims[3] != 1) return error(Code::corrupt, "{}: tensor {} has four dimensions", graph_.name, name);
  graph_.tensors.push_back(std::move(spec));
  made = TensorId{static_cast<uint32_t>(graph_.tensors.size() - 1)};
  return made;
}

Result<TensorId> GraphBuilder::optional_tensor(const std::string& name) {
  if (gguf_.find_tensor(name) == nullptr) return TensorId{};
  return tensor(name);
}

Result<RopeSpec> GraphBuilder::rope(const RopeKeys& keys) const {
  RopeSpec rope;
  rope.pairs = keys.pairs;
  SLUICE_ASSIGN_OR_RETURN(rope.n_rot, key_or<uint32_t>("rope.dimension_count", graph_.head_dim));
  SLUICE_ASSIGN_OR_RETURN(const float base, key_or<float>(keys.base, keys.default_base));
  if (rope.n_rot > graph_.head_dim || rope.n_rot % 2 != 0)
    return error(Code::corrupt, "{}: rope.dimension_count is {}, expected an even number up to {}", graph_.name,
                 rope.n_rot, graph_.head_dim);
  if (!(base > 1 && base < 1e12f)) return error(Code::corrupt, "{}: {} is {}", graph_.name, keys.base, base);
  for (uint32_t i = 0; i < rope.n_rot / 2; ++i)
    rope.freqs.push_back(static_cast<float>(std::pow(static_cast<double>(base), -2.0 * i / rope.n_rot)));
  if (!keys.scaled) return rope;
  SLUICE_RETURN_IF_ERROR(scale_freqs(rope, base));
  SLUICE_RETURN_IF_ERROR(divide_by_tensor(rope));
  return rope;
}

// Linear scaling and YaRN (Peng et al., arXiv:2309.00071), by the rope.scaling keys.
Status GraphBuilder::scale_freqs(RopeSpec& rope, float base) const {
  SLUICE_ASSIGN_OR_RETURN(const auto type, key_or<std::string_view>("rope.scaling.type", "none"));
  SLUICE_ASSIGN_OR_RETURN(const float factor, key_or<float>("rope.scaling.factor", 1.0f));
  if (type == "none" || factor == 1.0f) return {};
  if (!(factor > 0)) return error(Code::corrupt, "{}: rope.scaling.factor is {}", graph_.name, factor);
  if (type == "yarn") return apply_yarn(rope, factor, base);
  if (type != "linear")
    return error(Code::unsupported, "{}: rope.scaling.type '{}' is not supported", graph_.name, type);
  for (float& f : rope.freqs) f /= factor;
  return {};
}

Status GraphBuilder::apply_yarn(RopeSpec& rope, double factor, double base) const {
  SLUICE_ASSIGN_OR_RETURN(const auto original, key<uint32_t>("rope.scaling.original_context_length"));
  SLUICE_ASSIGN_OR_RETURN(const float attn_factor, key_or<float>("rope.scaling.attn_factor", 1.0f));
  const double n = rope.n_rot;
  const auto corner = [&](double beta) { return n * std::log(original / (2 * M_PI * beta)) / (2 * std::log(base)); };
  const double low = std::max(0.0, std::floor(corner(32)));
  const double high = std::min(n - 1, std::ceil(corner(1)));
  for (size_t i = 0; i < rope.freqs.size(); ++i) {
    const double ramp = 1 - std::clamp((static_cast<double>(i) - low) / std::max(0.001, high - low), 0.0, 1.0);
    rope.freqs[i] = static_cast<float>(rope.freqs[i] * ((1 - ramp) / factor + ramp));
  }
  rope.scale = static_cast<float>((0.1 * std::log(factor) + 1) * attn_factor);
  return {};
}

// rope_freqs.weight, which Llama 3.1 and later carry, divides the frequencies.
Status GraphBuilder::divide_by_tensor(RopeSpec& rope) const {
  const storage::GgufTensor* t = gguf_.find_tensor("rope_freqs.weight");
  if (t == nullptr) return {};
  if (t->dtype != DType::f32 || t->elements() != rope.freqs.size())
    return error(Code::corrupt, "{}: rope_freqs.weight holds {} values, expected {} of F32", graph_.name, t->elements(),
                 rope.freqs.size());
  std::vector<float> divisors(rope.freqs.size());
  std::ifstream file(gguf_.parts()[t->file].path, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(t->offset));
  if (!file.read(reinterpret_cast<char*>(divisors.data()), static_cast<std::streamsize>(t->bytes)))
    return error(Code::io_error, "{}: cannot read rope_freqs.weight", graph_.name);
  for (size_t i = 0; i < divisors.size(); ++i) {
    if (!(divisors[i] > 0)) return error(Code::corrupt, "{}: rope_freqs.weight[{}] is {}", graph_.name, i, divisors[i]);
    rope.freqs[i] /= divisors[i];
  }
  return {};
}

Status GraphBuilder::add_head(TensorId table, float eps, float softcap) {
  HeadOp head;
  head.eps = eps;
  head.softcap = softcap;
  SLUICE_ASSIGN_OR_RETURN(head.norm, tensor("output_norm.weight"));
  SLUICE_ASSIGN_OR_RETURN(head.output, optional_tensor("output.weight"));
  if (!head.output.valid()) head.output = table;
  graph_.ops.push_back(head);
  return {};
}

Result<Graph> GraphBuilder::finish() {
  SLUICE_RETURN_IF_ERROR(validate(graph_));
  return std::move(graph_);
}

}  // namespace sluice::engine
