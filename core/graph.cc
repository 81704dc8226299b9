#include "core/graph.h"

#include <algorithm>

#include "core/error.h"

namespace sluice {
namespace {

template <class... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <class... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;

std::vector<TensorId> present(std::initializer_list<TensorId> ids) {
  std::vector<TensorId> out;
  std::copy_if(ids.begin(), ids.end(), std::back_inserter(out), [](TensorId id) { return id.valid(); });
  return out;
}

// Checks of one graph, each naming the op it belongs to.
class Validator {
 public:
  explicit Validator(const Graph& graph) : g_(graph) {}

  Status run() {
    if (g_.hidden_size == 0 || g_.n_vocab == 0 || g_.n_heads == 0 || g_.n_kv_heads == 0 || g_.head_dim == 0)
      return error(Code::corrupt, "{}: a size of the model is zero", g_.name);
    if (g_.n_heads % g_.n_kv_heads != 0)
      return error(Code::corrupt, "{}: {} heads are not a multiple of {} kv heads", g_.name, g_.n_heads, g_.n_kv_heads);
    if (g_.ops.empty() || !std::holds_alternative<EmbedOp>(g_.ops.front()) ||
        !std::holds_alternative<HeadOp>(g_.ops.back()))
      return error(Code::internal, "{}: a graph begins with embed and ends with head", g_.name);
    for (op_ = 0; op_ < g_.ops.size(); ++op_)
      SLUICE_RETURN_IF_ERROR(std::visit([this](const auto& op) { return check(op); }, g_.ops[op_]));
    return {};
  }

 private:
  uint32_t q_size() const { return g_.n_heads * g_.head_dim; }
  uint32_t kv_size() const { return g_.n_kv_heads * g_.head_dim; }

  Status shape(TensorId id, const char* role, uint32_t rows, uint32_t cols, uint32_t experts = 1) const {
    if (!id.valid() || id.value >= g_.tensors.size())
      return error(Code::corrupt, "{}: op {} ({}) has no tensor for {}", g_.name, op_, sluice::name(g_.ops[op_]), role);
    const TensorSpec& t = g_.tensor(id);
    if (t.dtype == DType::i32)
      return error(Code::corrupt, "{}: tensor {} holds integers, {} are numbers", g_.name, t.name, role);
    if (t.rows != rows || t.cols != cols || t.experts != experts)
      return error(Code::corrupt, "{}: tensor {} is {} x {} x {}, {} of op {} ({}) needs {} x {} x {}", g_.name, t.name,
                   t.cols, t.rows, t.experts, role, op_, sluice::name(g_.ops[op_]), cols, rows, experts);
    return {};
  }
  Status vector(TensorId id, const char* role, uint32_t size) const {
    SLUICE_RETURN_IF_ERROR(shape(id, role, 1, size));
    if (g_.tensor(id).dtype != DType::f32)
      return error(Code::unsupported, "{}: tensor {} is {}, only F32 is read for {}", g_.name, g_.tensor(id).name,
                   info(g_.tensor(id).dtype).name, role);
    return {};
  }
  Status optional_vector(TensorId id, const char* role, uint32_t size) const {
    return id.valid() ? vector(id, role, size) : Status();
  }

  Status check(const EmbedOp& op) const { return shape(op.table, "embeddings", g_.n_vocab, g_.hidden_size); }
  Status check(const AttentionInOp& op) const {
    if (op.layer >= g_.n_layers || op.rope >= g_.ropes.size())
      return error(Code::internal, "{}: op {} names layer {} and rope {}", g_.name, op_, op.layer, op.rope);
    const RopeSpec& rope = g_.ropes[op.rope];
    if (rope.n_rot > g_.head_dim || rope.n_rot % 2 != 0 || rope.freqs.size() != rope.n_rot / 2)
      return error(Code::corrupt, "{}: rope rotates {} of {} values with {} frequencies", g_.name, rope.n_rot,
                   g_.head_dim, rope.freqs.size());
    SLUICE_RETURN_IF_ERROR(vector(op.norm, "attention norm", g_.hidden_size));
    SLUICE_RETURN_IF_ERROR(shape(op.wq, "queries", q_size(), g_.hidden_size));
    SLUICE_RETURN_IF_ERROR(shape(op.wk, "keys", kv_size(), g_.hidden_size));
    SLUICE_RETURN_IF_ERROR(shape(op.wv, "values", kv_size(), g_.hidden_size));
    SLUICE_RETURN_IF_ERROR(optional_vector(op.bq, "query bias", q_size()));
    SLUICE_RETURN_IF_ERROR(optional_vector(op.bk, "key bias", kv_size()));
    SLUICE_RETURN_IF_ERROR(optional_vector(op.bv, "value bias", kv_size()));
    SLUICE_RETURN_IF_ERROR(optional_vector(op.q_norm, "query norm", g_.head_dim));
    return optional_vector(op.k_norm, "key norm", g_.head_dim);
  }
  Status check(const AttentionOp& op) const {
    const auto* in = op_ > 0 ? std::get_if<AttentionInOp>(&g_.ops[op_ - 1]) : nullptr;
    if (in == nullptr || in->layer != op.layer)
      return error(Code::internal, "{}: op {}: attention follows its attention_in", g_.name, op_);
    return {};
  }
  Status check(const AttentionOutOp& op) const {
    SLUICE_RETURN_IF_ERROR(shape(op.wo, "attention output", g_.hidden_size, q_size()));
    SLUICE_RETURN_IF_ERROR(optional_vector(op.bo, "attention output bias", g_.hidden_size));
    return optional_vector(op.post_norm, "norm behind attention", g_.hidden_size);
  }
  Status check(const FfnOp& op) const {
    SLUICE_RETURN_IF_ERROR(vector(op.norm, "ffn norm", g_.hidden_size));
    const uint32_t width = op.gate.valid() ? g_.tensor(op.gate).rows : 0;
    SLUICE_RETURN_IF_ERROR(shape(op.gate, "ffn gate", width, g_.hidden_size));
    SLUICE_RETURN_IF_ERROR(shape(op.up, "ffn up", width, g_.hidden_size));
    SLUICE_RETURN_IF_ERROR(shape(op.down, "ffn down", g_.hidden_size, width));
    return optional_vector(op.post_norm, "norm behind ffn", g_.hidden_size);
  }
  Status check(const RouteOp& op) const {
    SLUICE_RETURN_IF_ERROR(vector(op.norm, "router norm", g_.hidden_size));
    const uint32_t n_experts = op.router.valid() ? g_.tensor(op.router).rows : 0;
    if (op.used == 0 || op.used > n_experts)
      return error(Code::corrupt, "{}: {} of {} experts are used", g_.name, op.used, n_experts);
    return shape(op.router, "router", n_experts, g_.hidden_size);
  }
  Status check(const ExpertsOp& op) const {
    const auto* route = op_ > 0 ? std::get_if<RouteOp>(&g_.ops[op_ - 1]) : nullptr;
    if (route == nullptr) return error(Code::internal, "{}: op {}: experts follow their route", g_.name, op_);
    const uint32_t n_experts = g_.tensor(route->router).rows;
    const uint32_t width = op.gate.valid() ? g_.tensor(op.gate).rows : 0;
    SLUICE_RETURN_IF_ERROR(shape(op.gate, "expert gates", width, g_.hidden_size, n_experts));
    SLUICE_RETURN_IF_ERROR(shape(op.up, "expert ups", width, g_.hidden_size, n_experts));
    return shape(op.down, "expert downs", g_.hidden_size, width, n_experts);
  }
  Status check(const HeadOp& op) const {
    SLUICE_RETURN_IF_ERROR(vector(op.norm, "output norm", g_.hidden_size));
    return shape(op.output, "output", g_.n_vocab, g_.hidden_size);
  }

  const Graph& g_;
  size_t op_ = 0;
};

}  // namespace

std::string_view name(const Op& op) {
  return std::visit(
      Overloaded{[](const EmbedOp&) { return "embed"; }, [](const AttentionInOp&) { return "attention_in"; },
                 [](const AttentionOp&) { return "attention"; }, [](const AttentionOutOp&) { return "attention_out"; },
                 [](const FfnOp&) { return "ffn"; }, [](const RouteOp&) { return "route"; },
                 [](const ExpertsOp&) { return "experts"; }, [](const HeadOp&) { return "head"; }},
      op);
}

std::vector<TensorId> matrices(const Op& op) {
  using Ids = std::vector<TensorId>;
  return std::visit(
      Overloaded{[](const EmbedOp&) { return Ids(); },
                 [](const AttentionInOp& o) {
                   return present({o.wq, o.wk, o.wv});
                 },
                 [](const AttentionOp&) { return Ids(); }, [](const AttentionOutOp& o) { return present({o.wo}); },
                 [](const FfnOp& o) {
                   return present({o.gate, o.up, o.down});
                 },
                 [](const RouteOp& o) { return present({o.router}); }, [](const ExpertsOp&) { return Ids(); },
                 [](const HeadOp& o) { return present({o.output}); }},
      op);
}

std::vector<TensorId> vectors(const Op& op) {
  using Ids = std::vector<TensorId>;
  return std::visit(
      Overloaded{[](const EmbedOp&) { return Ids(); },
                 [](const AttentionInOp& o) {
                   return present({o.norm, o.bq, o.bk, o.bv, o.q_norm, o.k_norm});
                 },
                 [](const AttentionOp&) { return Ids(); },
                 [](const AttentionOutOp& o) {
                   return present({o.bo, o.post_norm});
                 },
                 [](const FfnOp& o) {
                   return present({o.norm, o.post_norm});
                 },
                 [](const RouteOp& o) { return present({o.norm}); }, [](const ExpertsOp&) { return Ids(); },
                 [](const HeadOp& o) { return present({o.norm}); }},
      op);
}

Status validate(const Graph& graph) { return Validator(graph).run(); }

}  // namespace sluice
