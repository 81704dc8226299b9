// Workspaces: what an op reads and writes lies apart, within the bytes that were measured.
#include "offload/plan/workspace.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "cpu/kernels/kernels.h"
#include "gpu/kernels/q8_rows.h"
#include "tests/cpu/kernel_inputs.h"
#include "tests/support/tiny_graph.h"

namespace sluice::plan {
namespace {

using cpu::test::Random;

struct Part {
  const void* at;
  uint64_t bytes;
};

bool apart(std::vector<Part> parts, const std::byte* base, uint64_t bytes) {
  std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.at < b.at; });
  const std::byte* end = base;
  for (const Part& part : parts) {
    const auto* at = static_cast<const std::byte*>(part.at);
    if (at < end) return false;
    end = at + part.bytes;
  }
  return end <= base + bytes;
}

// `rows` x `cols` in the forms that products want: in 8 bits, as a GPU or a CPU has them, in groups of bf16.
uint64_t widest(uint32_t rows, uint32_t cols, bool accelerator) {
  if (accelerator) return rows * gpu::q8_layout(cols).row_bytes;
  return std::max({rows * cpu::q8_row_bytes(cols), cpu::groups_bytes(ActFormat::bf16, rows, cols),
                   cpu::groups_bytes(ActFormat::wide8, rows, cols)});
}

testing::TinyOptions some_model(Random& random) {
  testing::TinyOptions o;
  o.n_kv_heads = random.pick(1, 3);
  o.n_heads = o.n_kv_heads * random.pick(1, 3);
  o.head_dim = 16 * random.pick(1, 4);
  o.hidden = 32 * random.pick(1, 6);
  o.ffn = 32 * random.pick(1, 20);
  if (random.pick(0, 2) == 0) o.experts = 8;
  return o;
}

}  // namespace

TEST_CASE("workspace: what ops use at once lies apart") {
  Random random(7);
  for (int round = 0; round < 60; ++round) {
    const testing::TinyOptions o = some_model(random);
    const testing::TinyModel model = make_tiny(o);
    const WorkspaceShape shape{random.pick(1, 300), random.pick(1, 20), random.pick(1, 4), 0};
    const bool accelerator = random.pick(0, 1) == 0;
    Workspace ws;
    const uint64_t bytes = lay_out(model.graph, shape, accelerator, 4, nullptr, ws);
    std::vector<std::byte> memory(bytes + 64);
    std::byte* base = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
    REQUIRE(lay_out(model.graph, shape, accelerator, 4, base, ws) == bytes);

    const uint64_t n = shape.tokens, routed = o.experts == 0 ? 0 : n * o.used, gated = std::max(n, routed);
    const uint64_t q = uint64_t{o.n_heads} * o.head_dim, kv = uint64_t{o.n_kv_heads} * o.head_dim;
    const uint32_t wide = std::max({o.hidden, static_cast<uint32_t>(q), o.ffn});
    std::vector<Part> always = {
        {ws.h, n * o.hidden * 4}, {ws.x, n * o.hidden * 4}, {ws.acts, widest(shape.tokens, wide, accelerator)}};
    if (accelerator) always.push_back({ws.logits, uint64_t{shape.logit_rows} * o.n_vocab * 4});
    if (routed != 0)
      for (const float* rows : {ws.expert_x, ws.expert_out}) always.push_back({rows, routed * o.hidden * 4});
    const auto with = [&](std::vector<Part> parts) {
      parts.insert(parts.end(), always.begin(), always.end());
      return parts;
    };
    CHECK(apart(with({{ws.q, n * q * 4},
                      {ws.k, n * kv * 4},
                      {ws.v, n * kv * 4},
                      {ws.attended, n * q * 4},
                      {ws.state, n * o.n_heads * (o.head_dim + 2) * 4}}),
                base, bytes));
    CHECK(apart(with({{ws.gate, gated * o.ffn * 4}, {ws.up, gated * o.ffn * 4}}), base, bytes));
  }
}

TEST_CASE("workspace: attention and FFN share their place") {
  testing::TinyOptions o;
  o.ffn = 512;
  const testing::TinyModel narrow = make_tiny(o);
  o.n_heads *= 4;  // still not wider than gate and up
  const testing::TinyModel wide = make_tiny(o);
  Workspace ws;
  const WorkspaceShape shape{64, 1, 1, 0};
  CHECK(lay_out(wide.graph, shape, false, 4, nullptr, ws) == lay_out(narrow.graph, shape, false, 4, nullptr, ws));
}

}  // namespace sluice::plan
