// validate(): what may run, and a message that names op, layer and tensor for what may not.
#include "core/graph.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>

#include "tests/support/tiny_graph.h"

namespace sluice {
namespace {

using testing::make_tiny;

template <class T>
T& op_of(Graph& g, size_t nth = 0) {
  for (Op& op : g.ops)
    if (T* found = std::get_if<T>(&op); found != nullptr && nth-- == 0) return *found;
  FAIL("no such op");
  std::abort();
}

TEST_CASE("graph: every variant of the small models is valid") {
  for (const bool flag : {false, true}) {
    for (const uint32_t experts : {0u, 4u}) {
      testing::TinyOptions options;
      options.tied = options.biases = options.head_norms = flag;
      options.experts = experts;
      const Status status = validate(make_tiny(options).graph);
      CHECK_MESSAGE(status.ok(), status.message());
    }
  }
}

TEST_CASE("graph: whatever is broken is found") {
  const struct {
    const char* says;
    Code code;
    std::function<void(Graph&)> breaks;
  } cases[] = {
      {"zero", Code::corrupt, [](Graph& g) { g.hidden_size = 0; }},
      {"zero", Code::corrupt, [](Graph& g) { g.n_vocab = 0; }},
      {"zero", Code::corrupt, [](Graph& g) { g.n_kv_heads = 0; }},
      {"multiple", Code::corrupt, [](Graph& g) { g.n_kv_heads = 3; }},
      {"embed", Code::internal, [](Graph& g) { g.ops.clear(); }},
      {"embed", Code::internal, [](Graph& g) { g.ops.erase(g.ops.begin()); }},
      {"head", Code::internal, [](Graph& g) { g.ops.pop_back(); }},
      {"embeddings", Code::corrupt, [](Graph& g) { op_of<EmbedOp>(g).table = TensorId{}; }},
      {"embeddings", Code::corrupt, [](Graph& g) { op_of<EmbedOp>(g).table = TensorId{9999}; }},
      {"layer", Code::internal, [](Graph& g) { op_of<AttentionInOp>(g).layer = g.n_layers; }},
      {"rope", Code::internal, [](Graph& g) { op_of<AttentionInOp>(g).rope = 99; }},
      {"rope", Code::corrupt, [](Graph& g) { g.ropes[0].freqs.pop_back(); }},
      {"rope", Code::corrupt, [](Graph& g) { g.ropes[0].n_rot = g.head_dim + 2; }},
      {"keys", Code::corrupt, [](Graph& g) { op_of<AttentionInOp>(g, 1).wk = op_of<AttentionInOp>(g, 1).wq; }},
      {"attention norm", Code::corrupt, [](Graph& g) { op_of<AttentionInOp>(g).norm = TensorId{}; }},
      {"attention norm", Code::corrupt, [](Graph& g) { g.tensors[op_of<AttentionInOp>(g).norm.value].cols += 1; }},
      {"only F32", Code::unsupported,
       [](Graph& g) { g.tensors[op_of<AttentionInOp>(g).norm.value].dtype = DType::f16; }},
      {"integers", Code::corrupt, [](Graph& g) { g.tensors[op_of<FfnOp>(g).up.value].dtype = DType::i32; }},
      {"follows", Code::internal, [](Graph& g) { std::swap(g.ops[1], g.ops[2]); }},
      {"follows", Code::internal, [](Graph& g) { op_of<AttentionOp>(g).layer += 1; }},
      {"attention output", Code::corrupt, [](Graph& g) { op_of<AttentionOutOp>(g).wo = op_of<FfnOp>(g).up; }},
      {"ffn gate", Code::corrupt, [](Graph& g) { op_of<FfnOp>(g).gate = TensorId{}; }},
      {"ffn up", Code::corrupt, [](Graph& g) { g.tensors[op_of<FfnOp>(g, 2).up.value].rows -= 1; }},
      {"ffn down", Code::corrupt, [](Graph& g) { op_of<FfnOp>(g).down = op_of<FfnOp>(g).up; }},
      {"output", Code::corrupt, [](Graph& g) { op_of<HeadOp>(g).output = op_of<FfnOp>(g).up; }},
      {"output norm", Code::corrupt, [](Graph& g) { op_of<HeadOp>(g).norm = TensorId{}; }},
  };
  for (const auto& c : cases) {
    Graph g = make_tiny({}).graph;
    c.breaks(g);
    const Status status = validate(g);
    CHECK_MESSAGE(status.code() == c.code, c.says << ": " << status.message());
    CHECK_MESSAGE(status.message().find(c.says) != std::string::npos, c.says << ": " << status.message());
  }
}

TEST_CASE("graph: whatever is broken about experts is found") {
  const struct {
    const char* says;
    Code code;
    std::function<void(Graph&)> breaks;
  } cases[] = {
      {"experts are used", Code::corrupt, [](Graph& g) { op_of<RouteOp>(g).used = 0; }},
      {"experts are used", Code::corrupt, [](Graph& g) { op_of<RouteOp>(g).used = 5; }},
      {"experts are used", Code::corrupt, [](Graph& g) { op_of<RouteOp>(g).router = TensorId{}; }},
      {"router", Code::corrupt, [](Graph& g) { g.tensors[op_of<RouteOp>(g).router.value].cols *= 2; }},
      {"expert gates", Code::corrupt, [](Graph& g) { g.tensors[op_of<ExpertsOp>(g).gate.value].experts = 3; }},
      {"expert ups", Code::corrupt, [](Graph& g) { op_of<ExpertsOp>(g).up = op_of<RouteOp>(g).router; }},
      {"expert downs", Code::corrupt, [](Graph& g) { op_of<ExpertsOp>(g).down = TensorId{}; }},
      {"follow their route", Code::internal,
       [](Graph& g) {
         const auto at =
             std::find_if(g.ops.begin(), g.ops.end(), [](const Op& op) { return std::holds_alternative<RouteOp>(op); });
         g.ops.erase(at);
       }},
  };
  for (const auto& c : cases) {
    testing::TinyOptions options;
    options.experts = 4;
    Graph g = make_tiny(options).graph;
    c.breaks(g);
    const Status status = validate(g);
    CHECK_MESSAGE(status.code() == c.code, c.says << ": " << status.message());
    CHECK_MESSAGE(status.message().find(c.says) != std::string::npos, c.says << ": " << status.message());
  }
}

TEST_CASE("graph: the tensors of an op are told apart and in the order of reading") {
  testing::TinyOptions options;
  options.biases = options.head_norms = true;
  Graph g = make_tiny(options).graph;
  const AttentionInOp& in = op_of<AttentionInOp>(g);
  CHECK(matrices(Op(in)) == std::vector<TensorId>{in.wq, in.wk, in.wv});
  CHECK(vectors(Op(in)) == std::vector<TensorId>{in.norm, in.bq, in.bk, in.bv, in.q_norm, in.k_norm});
  const FfnOp& ffn = op_of<FfnOp>(g);
  CHECK(matrices(Op(ffn)) == std::vector<TensorId>{ffn.gate, ffn.up, ffn.down});
  CHECK(matrices(Op(EmbedOp{})).empty());  // rows of the table are gathered
  Graph plain = make_tiny({}).graph;
  CHECK(vectors(Op(op_of<AttentionInOp>(plain))).size() == 1);  // absent ones are left out
}

}  // namespace
}  // namespace sluice
