#include <doctest/doctest.h>

#include <algorithm>

#include "core/dtype.h"
#include "tests/cpu/kernel_inputs.h"

using namespace sluice;
using namespace sluice::cpu;
using namespace sluice::cpu::test;

namespace {

constexpr float inf = INFINITY;

double activate(Activation activation, double x) {
  if (activation == Activation::silu) return x / (1 + std::exp(-x));
  const double u = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
  return 0.5 * x * (1 + std::tanh(u));
}

std::vector<float> gated(Isa isa, const std::vector<float>& gate, const std::vector<float>& up, Activation activation,
                         uint32_t shares, uint32_t rows = 1) {
  std::vector<float> out(gate.size());
  const auto cols = static_cast<uint32_t>(gate.size() / rows);
  run_in_shares(isa, GatedActCall{gate.data(), up.data(), activation, rows, cols, out.data()}, shares);
  return out;
}

}  // namespace

TEST_CASE("gated_act: silu is within 1e-6 of double precision wherever it is normal") {
  std::vector<float> gate, up;
  for (float x = -87; x < 100; x += 0.00731f) gate.push_back(x), up.push_back(1);
  for (const Isa isa : supported_isas()) {
    const std::vector<float> out = gated(isa, gate, up, Activation::silu, 3);
    double worst = 0;
    for (size_t i = 0; i < gate.size(); ++i) {
      const double want = activate(Activation::silu, double{gate[i]});
      worst = std::max(worst, std::abs(double{out[i]} - want) / std::max(std::abs(want), 1e-36));
    }
    CHECK(worst < 4e-7);
  }
}

TEST_CASE("gated_act: gelu is within 1e-6 of double precision, or 1e-7 of 1 in its flat tail") {
  Random random(5);
  for (const Isa isa : supported_isas()) {
    std::vector<float> gate = random.normals(5003, 3), up = random.normals(5003);
    const std::vector<float> out = gated(isa, gate, up, Activation::gelu_tanh, 2);
    for (size_t i = 0; i < gate.size(); ++i)
      REQUIRE(close(double{out[i]}, activate(Activation::gelu_tanh, double{gate[i]}) * double{up[i]}, 1e-6, 1e-7));
  }
}

TEST_CASE("gated_act: extreme and special values") {
  for (const Isa isa : supported_isas())
    for (const Activation a : {Activation::silu, Activation::gelu_tanh}) {
      const std::vector<float> out = gated(isa, {0, -0.0f, 1e30f, -200, -95, NAN, 1e-40f}, {1, 1, 1, 1, 1, 1, 1}, a, 1);
      CHECK(out[0] == 0);
      CHECK(out[1] == 0);
      CHECK(out[2] == 1e30f);
      CHECK(std::abs(out[3]) < 1e-37f);
      CHECK(std::abs(out[4]) < 1e-37f);
      CHECK(std::isnan(out[5]));
      CHECK(std::abs(out[6]) <= 1e-40f);
    }
}

TEST_CASE("gated_act: same bits on every ISA, in any shares and batch, in place") {
  Random random(6);
  for (const uint32_t cols : {1u, 15u, 16u, 17u, 200u, 1537u})
    for (const Activation a : {Activation::silu, Activation::gelu_tanh}) {
      const std::vector<float> gate = random.normals(size_t{3} * cols, 5), up = random.normals(size_t{3} * cols);
      const std::vector<float> want = gated(Isa::scalar, gate, up, a, 1, 3);
      for (const Isa isa : supported_isas()) {
        for (uint32_t shares = 1; shares <= 5; ++shares) CHECK(same_bits(gated(isa, gate, up, a, shares, 3), want));
        std::vector<float> in_place = gate;
        for (size_t r = 0; r < 3; ++r)
          run_in_shares(isa, GatedActCall{&in_place[r * cols], &up[r * cols], a, 1, cols, &in_place[r * cols]}, 2);
        CHECK(same_bits(in_place, want));
      }
    }
}

TEST_CASE(
    "gated_act: some columns of rows that are apart, with the bits of the whole, and nothing between is written") {
  constexpr uint32_t rows = 4, stride = 133;
  Random random(7);
  const std::vector<float> gate = random.normals(size_t{rows} * stride, 5), up = random.normals(size_t{rows} * stride);
  const std::vector<float> want = gated(Isa::scalar, gate, up, Activation::silu, 1, rows);
  for (const Isa isa : supported_isas())
    for (const auto& [first, cols] : {std::pair{0u, 16u}, {16u, 117u}, {1u, 63u}})
      for (uint32_t shares = 1; shares <= 5; ++shares) {
        std::vector<float> out = gate;
        run_in_shares(isa, GatedActCall{&out[first], &up[first], Activation::silu, rows, cols, &out[first], stride},
                      shares);
        for (size_t i = 0; i < out.size(); ++i) {
          const bool made = i % stride >= first && i % stride < first + cols;
          REQUIRE(out[i] == (made ? want[i] : gate[i]));
        }
      }
}

TEST_CASE("copy_rows: any order, repeats, any shares") {
  Random random(7);
  for (const Isa isa : supported_isas())
    for (const uint32_t cols : {1u, 31u, 64u, 577u})
      for (uint32_t shares = 1; shares <= 5; ++shares) {
        const std::vector<float> x = random.normals(size_t{9} * cols);
        const std::vector<uint32_t> index = {8, 0, 3, 3, 5};
        std::vector<float> out(index.size() * cols);
        run_in_shares(isa, CopyRowsCall{x.data(), index.data(), 5, cols, out.data()}, shares);
        for (size_t i = 0; i < out.size(); ++i) REQUIRE(out[i] == x[index[i / cols] * cols + i % cols]);
      }
}

TEST_CASE("copy_rows: some columns of rows that are apart, and nothing between them is written") {
  constexpr uint32_t stride = 97;
  Random random(9);
  const std::vector<float> x = random.normals(size_t{9} * stride);
  const std::vector<uint32_t> index = {8, 0, 3, 3, 5};
  for (const Isa isa : supported_isas())
    for (const auto& [first, cols] : {std::pair{0u, 1u}, {16u, 80u}, {31u, 66u}, {0u, stride}})
      for (uint32_t shares = 1; shares <= 5; ++shares) {
        std::vector<float> out(index.size() * stride, -7.0f);
        run_in_shares(isa, CopyRowsCall{&x[first], index.data(), 5, cols, &out[first], stride}, shares);
        for (size_t i = 0; i < out.size(); ++i) {
          const size_t col = i % stride;
          const bool copied = col >= first && col < first + cols;
          REQUIRE(out[i] == (copied ? x[index[i / stride] * stride + col] : -7.0f));
        }
      }
}

TEST_CASE("merge: weighted sums in slot order, replacing or accumulating, same bits everywhere") {
  Random random(8);
  for (int round = 0; round < 30; ++round) {
    const uint32_t tokens = random.pick(1, 5), k = random.pick(1, 8), cols = random.pick(1, 300);
    const bool accumulate = random.pick(0, 1) == 1;
    std::vector<std::vector<float>> parts;
    std::vector<const float*> pointers;
    for (uint32_t i = 0; i < tokens * k; ++i) parts.push_back(random.normals(cols));
    for (const auto& p : parts) pointers.push_back(p.data());
    const std::vector<float> weights = random.normals(size_t{tokens} * k);
    const std::vector<float> before = random.normals(size_t{tokens} * cols);
    std::vector<float> first;
    for (const Isa isa : supported_isas())
      for (uint32_t shares = 1; shares <= 5; ++shares) {
        std::vector<float> out = before;
        run_in_shares(isa, MergeCall{pointers.data(), weights.data(), tokens, k, cols, accumulate, out.data()}, shares);
        if (first.empty()) first = out;
        REQUIRE(same_bits(out, first));
      }
    for (size_t i = 0; i < first.size(); ++i) {
      const size_t t = i / cols;
      double want = accumulate ? double{before[i]} : 0, size = std::abs(want);
      for (size_t s = 0; s < k; ++s) {
        const double part = double{weights[t * k + s]} * double{parts[t * k + s][i % cols]};
        want += part;
        size += std::abs(part);
      }
      REQUIRE(close(double{first[i]}, want, 0, 5e-7 * size));
    }
  }
}

TEST_CASE("kv_append: every token in its page, as core rounds halves; pages outside the span are left alone") {
  Random random(9);
  for (const Isa isa : supported_isas())
    for (const KvType type : {KvType::f16, KvType::f32})
      for (int round = 0; round < 12; ++round) {
        const uint32_t heads = random.pick(1, 5), dim = random.one_of({32u, 40u, 64u, 80u, 100u});
        const uint32_t page_tokens = random.one_of({16u, 64u}), width = static_cast<uint32_t>(kv_bytes(type));
        const size_t page_bytes = size_t{heads} * page_tokens * dim * width;
        // Two sequences of three pages; the span of each shows pages 1 and 2 only.
        std::vector<std::vector<std::byte>> memory(8, std::vector<std::byte>(page_bytes, std::byte{0x5a}));
        std::byte* k_pages[2][2] = {{memory[0].data(), memory[1].data()}, {memory[2].data(), memory[3].data()}};
        std::byte* v_pages[2][2] = {{memory[4].data(), memory[5].data()}, {memory[6].data(), memory[7].data()}};
        const KvSpan spans[2] = {{k_pages[0], v_pages[0], 1, 2, 0}, {k_pages[1], v_pages[1], 1, 2, 0}};
        const std::vector<TokenSlot> tokens = {
            {0, page_tokens - 1, 0},     {0, page_tokens, 0}, {1, page_tokens + 5, 0},
            {0, 3 * page_tokens - 1, 0}, {1, 0, 0},           {1, 3 * page_tokens, 0}};
        const auto n = static_cast<uint32_t>(tokens.size());
        std::vector<float> k = random.normals(size_t{n} * heads * dim),
                           v = random.normals(size_t{n} * heads * dim, 1e-5f);
        k[0] = 70000, k[heads * dim] = 1e-9f, k[heads * dim + 1] = -inf, k[heads * dim + 2] = 65519.9f;
        const KvAppendCall call{k.data(), v.data(), tokens.data(), spans, n, heads, dim, page_tokens, type};
        run_in_shares(isa, call, random.pick(1, 5));

        const auto expected = [&](const std::vector<float>& x, size_t i) {
          return type == KvType::f16 ? float_to_half(x[i]) : __builtin_bit_cast(uint32_t, x[i]);
        };
        for (uint32_t t = 0; t < n; ++t) {
          const uint32_t page = tokens[t].cell / page_tokens;
          if (page < 1 || page > 2) continue;
          for (uint32_t h = 0; h < heads; ++h)
            for (uint32_t d = 0; d < dim; ++d) {
              const size_t at = ((size_t{h} * page_tokens + tokens[t].cell % page_tokens) * dim + d) * width;
              const size_t from = (size_t{t} * heads + h) * dim + d;
              uint32_t got_k = 0, got_v = 0;
              std::memcpy(&got_k, spans[tokens[t].seq].k_pages[page - 1] + at, width);
              std::memcpy(&got_v, spans[tokens[t].seq].v_pages[page - 1] + at, width);
              REQUIRE(got_k == expected(k, from));
              REQUIRE(got_v == expected(v, from));
            }
        }
        // Three tokens were inside; all else is untouched.
        size_t touched = 0;
        for (size_t i = 0; i < 4; ++i)
          for (size_t row = 0; row < size_t{heads} * page_tokens; ++row) {
            const std::byte* p = memory[i].data() + row * dim * width;
            touched += std::any_of(p, p + dim * width, [](std::byte b) { return b != std::byte{0x5a}; });
          }
        CHECK(touched == size_t{3} * heads);
      }
}

TEST_CASE("softcap: within 1e-6 of double precision, the same bits on every ISA and in any shares") {
  Random random(9);
  for (const float cap : {0.5f, 30.0f, 50.0f}) {
    std::vector<float> x = random.normals(5003, cap);
    x.insert(x.end(), {0.0f, -0.0f, 1e30f, -1e30f, inf, -inf, 1e-30f});
    std::vector<float> want = x;
    run_in_shares(Isa::scalar, SoftcapCall{want.data(), 2, static_cast<uint32_t>(x.size() / 2), cap}, 1);
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = double{cap} * std::tanh(double{x[i]} / double{cap});
      REQUIRE(close(double{want[i]}, exact, 1e-6));
    }
    for (const Isa isa : supported_isas())
      for (const uint32_t shares : {1u, 2u, 5u}) {
        std::vector<float> out = x;
        run_in_shares(isa, SoftcapCall{out.data(), 1, static_cast<uint32_t>(x.size()), cap}, shares);
        CHECK(same_bits(out, want));
      }
  }
}
