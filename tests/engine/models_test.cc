// From the keys of a file to a Graph.
#include "engine/models/models.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/support/gguf_builder.h"

using namespace sluice;
using namespace sluice::test;

namespace {

constexpr uint32_t n_layers = 7;

// A Gemma 3 of seven layers that says no more than it must.
GgufBuilder gemma3(const char* left_out = "") {
  GgufBuilder file;
  file.string("general.architecture", "gemma3").u32("gemma3.context_length", 1024);
  file.u32("gemma3.embedding_length", 16).u32("gemma3.block_count", n_layers);
  file.u32("gemma3.attention.head_count", 2).u32("gemma3.attention.head_count_kv", 1);
  file.u32("gemma3.attention.key_length", 4).u32("gemma3.attention.value_length", 4);
  file.f32("gemma3.attention.layer_norm_rms_epsilon", 1e-6f);
  const auto add = [&](const std::string& name, std::vector<uint64_t> dims) {
    if (name != left_out) file.tensor(name, DType::f32, std::move(dims));
  };
  add("token_embd.weight", {16, 10});
  add("output_norm.weight", {16});
  for (uint32_t i = 0; i < n_layers; ++i) {
    const std::string blk = "blk." + std::to_string(i) + ".";
    for (const char* norm : {"attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"})
      add(blk + norm + ".weight", {16});
    for (const char* norm : {"attn_q_norm", "attn_k_norm"}) add(blk + norm + ".weight", {4});
    add(blk + "attn_q.weight", {16, 8});
    add(blk + "attn_k.weight", {16, 4});
    add(blk + "attn_v.weight", {16, 4});
    add(blk + "attn_output.weight", {8, 16});
    add(blk + "ffn_gate.weight", {16, 24});
    add(blk + "ffn_up.weight", {16, 24});
    add(blk + "ffn_down.weight", {24, 16});
  }
  return file;
}

Result<Graph> build(const GgufBuilder& file) {
  const auto gguf = storage::GgufFile::parse("test.gguf", file.bytes());
  REQUIRE_MESSAGE(gguf.ok(), gguf.status().message());
  const FileId id{0};
  return engine::build_graph(*gguf, {&id, 1});
}

Graph graph(const GgufBuilder& file) {
  auto made = build(file);
  REQUIRE_MESSAGE(made.ok(), made.status().message());
  return std::move(*made);
}

template <class T>
std::vector<T> ops(const Graph& g) {
  std::vector<T> found;
  for (const Op& op : g.ops)
    if (const auto* o = std::get_if<T>(&op)) found.push_back(*o);
  return found;
}

std::vector<uint32_t> windows(const Graph& g) {
  std::vector<uint32_t> all;
  for (const AttentionOp& op : ops<AttentionOp>(g)) all.push_back(op.window);
  return all;
}

void check_fails(const GgufBuilder& file, Code code, const char* part) {
  const auto made = build(file);
  REQUIRE(!made.ok());
  CHECK(made.status().code() == code);
  CHECK_MESSAGE(made.status().message().find(part) != std::string::npos, made.status().message());
}

}  // namespace

TEST_CASE("gemma3: what the file leaves out") {
  const Graph g = graph(gemma3());
  CHECK(windows(g) == std::vector<uint32_t>{512, 512, 512, 512, 512, 0, 512});
  REQUIRE(g.ropes.size() == 2);
  for (const AttentionInOp& in : ops<AttentionInOp>(g)) {
    const RopeSpec& rope = g.ropes[in.rope];
    CHECK(!rope.pairs);
    CHECK(rope.n_rot == 4);
    CHECK(rope.freqs[1] == doctest::Approx(1 / std::sqrt(in.layer == 5 ? 1e6 : 1e4)));
    CHECK(in.q_norm.valid());
    CHECK(in.k_norm.valid());
  }
  for (const AttentionOp& op : ops<AttentionOp>(g)) {
    CHECK(op.scale == 0.5f);
    CHECK(op.softcap == 0);
  }
  for (const AttentionOutOp& op : ops<AttentionOutOp>(g)) CHECK(op.post_norm.valid());
  for (const FfnOp& op : ops<FfnOp>(g)) {
    CHECK(op.post_norm.valid());
    CHECK(op.activation == Activation::gelu_tanh);
  }
  const auto embed = ops<EmbedOp>(g).front();
  CHECK(embed.scale == 4.0f);
  CHECK(ops<HeadOp>(g).front().output == embed.table);
  CHECK(ops<HeadOp>(g).front().softcap == 0);
}

TEST_CASE("gemma3: what the file says") {
  GgufBuilder file = gemma3();
  file.u32("gemma3.attention.sliding_window", 100).u32("gemma3.attention.sliding_window_pattern", 3);
  file.f32("gemma3.rope.freq_base", 400).f32("gemma3.rope.freq_base_swa", 900);
  file.string("gemma3.rope.scaling.type", "linear").f32("gemma3.rope.scaling.factor", 8);
  file.f32("gemma3.final_logit_softcapping", 30).f32("gemma3.attn_logit_softcapping", 50);
  file.tensor("output.weight", DType::f32, {16, 10});
  const Graph g = graph(file);
  CHECK(windows(g) == std::vector<uint32_t>{100, 100, 0, 100, 100, 0, 100});
  for (const AttentionInOp& in : ops<AttentionInOp>(g))
    CHECK(g.ropes[in.rope].freqs[1] == doctest::Approx(in.layer % 3 == 2 ? 1 / 20.0 / 8 : 1 / 30.0));
  CHECK(ops<AttentionOp>(g).front().softcap == 50);
  CHECK(ops<HeadOp>(g).front().softcap == 30);
  CHECK(ops<HeadOp>(g).front().output != ops<EmbedOp>(g).front().table);
}

TEST_CASE("gemma3: windows by a list, or none") {
  const std::vector<std::byte> marks = {std::byte{1}, std::byte{0}, std::byte{0}, std::byte{1},
                                        std::byte{0}, std::byte{1}, std::byte{0}};
  GgufBuilder file = gemma3();
  file.array("gemma3.attention.sliding_window_pattern", 7, marks, n_layers);
  CHECK(windows(graph(file)) == std::vector<uint32_t>{512, 0, 0, 512, 0, 512, 0});
  file.u32("gemma3.attention.sliding_window", 0);
  const Graph g = graph(file);
  CHECK(windows(g) == std::vector<uint32_t>(n_layers, 0));
  for (const AttentionInOp& in : ops<AttentionInOp>(g)) CHECK(in.rope == 0);
}

TEST_CASE("gemma3: files that make no sense are refused by name") {
  check_fails(gemma3("blk.3.post_ffw_norm.weight"), Code::not_found, "blk.3.post_ffw_norm.weight");
  check_fails(gemma3("blk.0.attn_q_norm.weight"), Code::not_found, "blk.0.attn_q_norm.weight");
  const std::vector<std::byte> few(3);
  check_fails(gemma3().array("gemma3.attention.sliding_window_pattern", 7, few, 3), Code::corrupt,
              "sliding_window_pattern has 3 entries for 7 layers");
  check_fails(gemma3().f32("gemma3.final_logit_softcapping", -1), Code::corrupt, "softcap");
  check_fails(gemma3().f32("gemma3.rope.freq_base_swa", 0), Code::corrupt, "rope.freq_base_swa");
  check_fails(gemma3("blk.1.post_attention_norm.weight").tensor("blk.1.post_attention_norm.weight", DType::f32, {15}),
              Code::corrupt, "blk.1.post_attention_norm.weight");
}

TEST_CASE("an architecture that is not there is named") {
  GgufBuilder file;
  file.string("general.architecture", "mamba").tensor("token_embd.weight", DType::f32, {16, 10});
  check_fails(file, Code::unsupported, "'mamba'");
}
