// What -ngl, -ot and their like become, and what is refused.
#include "engine/overrides.h"

#include <doctest/doctest.h>

#include "offload/plan/planner.h"

using namespace sluice;
using namespace sluice::engine;

namespace {

// Two layers; tensors are named as in a file.
Graph two_layers() {
  Graph g;
  g.name = "two";
  g.n_layers = 2;
  const auto add = [&](const std::string& name) {
    g.tensors.push_back({name, DType::q8_0, 64, 64, 1, {}});
    return TensorId{static_cast<uint32_t>(g.tensors.size() - 1)};
  };
  g.ops.push_back(EmbedOp{add("token_embd.weight"), 1});
  for (uint32_t layer = 0; layer < 2; ++layer) {
    const std::string blk = "blk." + std::to_string(layer) + ".";
    AttentionInOp in;
    in.layer = layer;
    in.wq = add(blk + "attn_q.weight"), in.wk = add(blk + "attn_k.weight"), in.wv = add(blk + "attn_v.weight");
    g.ops.push_back(in);
    g.ops.push_back(AttentionOp{layer, 1, 0, 0});
    AttentionOutOp out;
    out.wo = add(blk + "attn_output.weight");
    g.ops.push_back(out);
    FfnOp ffn;
    ffn.gate = add(blk + "ffn_gate.weight"), ffn.up = add(blk + "ffn_up.weight"),
    ffn.down = add(blk + "ffn_down.weight");
    g.ops.push_back(ffn);
  }
  HeadOp head;
  head.output = add("output.weight");
  g.ops.push_back(head);
  return g;
}

constexpr int x = plan::any_site;
using Sites = std::vector<int>;

Sites pinned(const EngineOptions& options) {
  const auto pins = pinned_ops(options, two_layers());
  REQUIRE_MESSAGE(pins.ok(), pins.status().message());
  return {pins->begin(), pins->end()};
}

Status refused(const EngineOptions& options) {
  const auto pins = pinned_ops(options, two_layers());
  REQUIRE(!pins.ok());
  return pins.status();
}

EngineOptions rules(std::vector<std::string> places) {
  EngineOptions o;
  o.tensor_places = std::move(places);
  return o;
}

}  // namespace

TEST_CASE("overrides: without any the planner is free") { CHECK(pinned({}).empty()); }

TEST_CASE("overrides: the last layers on the GPU, and the output with one more than there are") {
  EngineOptions o;
  o.gpu_layers = 0;
  CHECK(pinned(o) == Sites{x, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  o.gpu_layers = 1;
  CHECK(pinned(o) == Sites{x, 0, 0, 0, 0, 1, 1, 1, 1, 0});
  o.gpu_layers = 2;
  CHECK(pinned(o) == Sites{x, 1, 1, 1, 1, 1, 1, 1, 1, 0});
  o.gpu_layers = 99;
  CHECK(pinned(o) == Sites{x, 1, 1, 1, 1, 1, 1, 1, 1, 1});
}

TEST_CASE("overrides: FFNs of the first layers on the CPU") {
  EngineOptions o;
  o.cpu_ffn_layers = 1;
  CHECK(pinned(o) == Sites{x, x, x, x, 0, x, x, x, x, x});
  o.gpu_layers = 99;
  CHECK(pinned(o) == Sites{x, 1, 1, 1, 0, 1, 1, 1, 1, 1});
  o.cpu_ffn_layers = 3;
  CHECK(refused(o).message().find("--n-cpu-ffn 3") != std::string::npos);
  o.cpu_ffn_layers = 0;
  o.cpu_expert_layers = 1;
  CHECK(refused(o).code() == Code::unsupported);
}

TEST_CASE("overrides: expressions choose whole ops; the first rule that matches counts") {
  CHECK(pinned(rules({"ffn_.*=CPU"})) == Sites{x, x, x, x, 0, x, x, x, 0, x});
  CHECK(pinned(rules({"blk\\.1\\.=GPU"})) == Sites{x, x, x, x, x, 1, x, 1, 1, x});
  CHECK(pinned(rules({"blk\\.0\\.ffn=GPU", "ffn=CPU"})) == Sites{x, x, x, x, 1, x, x, x, 0, x});
  CHECK(pinned(rules({"^output=CPU"})) == Sites{x, x, x, x, x, x, x, x, x, 0});
}

TEST_CASE("overrides: what cannot be kept exactly is refused") {
  CHECK(refused(rules({"ffn_down=CPU"})).code() == Code::unsupported);
  CHECK(refused(rules({"ffn_down=CPU"})).message().find("1 of the 3 matrices that ffn of layer 0") !=
        std::string::npos);
  CHECK(refused(rules({"nothing=CPU"})).code() == Code::invalid_argument);
  CHECK(refused(rules({"ffn"})).message().find("REGEX=CPU") != std::string::npos);
  CHECK(refused(rules({"ffn=TPU"})).code() == Code::invalid_argument);
  CHECK(refused(rules({"ffn(=CPU"})).message().find("not an expression") != std::string::npos);
}
