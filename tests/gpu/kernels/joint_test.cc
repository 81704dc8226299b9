// Calls that have a kernel in common: they leave behind what they leave alone, bit for bit; others do not join.
#include <algorithm>

#include "tests/cpu/kernel_inputs.h"
#include "tests/cpu/reference.h"
#include "tests/gpu/kernels/q8_data.h"

using namespace sluice;
using namespace sluice::gpu;
using namespace sluice::gpu::test;
using sluice::cpu::test::Random;
using sluice::test::random_weights;
using sluice::test::Rng;

namespace {

constexpr DType quantized_types[] = {DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1,
                                     DType::q8_0, DType::q4_k, DType::q6_k};

bool all_join(std::span<const KernelCall> calls) {
  for (size_t n = 1; n < calls.size(); ++n)
    if (!joins(calls.first(n), calls[n])) return false;
  return true;
}

using Bytes = std::vector<std::byte>;

// What the calls leave in `memory`, which holds `before` when they begin.
Bytes left_by(const std::vector<KernelCall>& calls, bool together, const Bytes& before,
              DeviceArray<std::byte>& memory) {
  memory.set(before);
  KernelContext context{8, nullptr, 0};
  context.transfers = together && can_transfer();
  const std::span<const KernelCall> all(calls);
  for (size_t i = 0; i < all.size(); i += together ? all.size() : 1) {
    const Status status = run(stream(), all.subspan(i, together ? all.size() : 1), context);
    REQUIRE_MESSAGE(status.ok(), status.message());
  }
  finish();
  return memory.get();
}

void check_same(const std::vector<KernelCall>& calls, const Bytes& before, DeviceArray<std::byte>& memory) {
  REQUIRE(all_join(calls));
  CHECK(left_by(calls, true, before, memory) == left_by(calls, false, before, memory));
}

// Floats, as the bytes of an array.
Bytes bytes_of(const std::vector<float>& values) {
  const auto bytes = std::as_bytes(std::span<const float>(values));
  return {bytes.begin(), bytes.end()};
}

// Some matrices of one type and the activations that they are multiplied with.
struct Products {
  DType type;
  uint32_t cols, n_tokens;
  std::vector<uint32_t> rows;
  std::vector<DeviceArray<std::byte>> weights;
  DeviceArray<std::byte> x;
  DeviceArray<float> bias;

  Products(DType dtype, uint32_t n, uint32_t tokens, Random& random)
      : type(dtype),
        cols(info(dtype).block_elements * random.pick(1, dtype == DType::q4_k || dtype == DType::q6_k ? 5 : 40)),
        n_tokens(tokens),
        x(quantized(random.normals(size_t{tokens} * cols), tokens, cols)),
        bias(random.normals(200)) {
    Rng rng(random.pick(1, 1000));
    for (uint32_t i = 0; i < n; ++i) {
      rows.push_back(random.pick(1, 90));
      Bytes bytes(row_bytes(type, uint64_t{rows.back()} * cols));
      random_weights(type, uint64_t{rows.back()} * cols, rng, bytes.data(), false);
      weights.emplace_back(bytes, random.one_of({0u, 0u, 2u, 6u}));
    }
  }
  uint32_t all_rows() const {
    uint32_t sum = 0;
    for (const uint32_t r : rows) sum += r;
    return sum;
  }
  // `beside`: the outputs of a token lie side by side, as those of the tiles of one matrix do; else one behind the
  // other.
  std::vector<KernelCall> calls(float* out, bool beside, bool accumulate) const {
    std::vector<KernelCall> all;
    for (size_t i = 0; i < rows.size(); ++i) {
      all.emplace_back(MatmulCall{weights[i].data(), type, rows[i], cols, x.data(), ActFormat::q8, n_tokens, out,
                                  beside ? all_rows() : rows[i], i % 2 == 1 ? bias.data() : nullptr, accumulate});
      out += beside ? rows[i] : rows[i] * n_tokens;
    }
    return all;
  }
};

}  // namespace

TEST_CASE("gpu joint products: each as alone, of any type, number and size") {
  Random random(31);
  for (const DType type : quantized_types)
    for (int round = 0; round < 6; ++round) {
      const Products products(type, random.pick(2, most_joint), random.one_of({1u, 1u, 2u, 7u, 8u, 9u, 16u}), random);
      const Bytes before = bytes_of(random.normals(size_t{products.n_tokens} * products.all_rows()));
      DeviceArray<std::byte> out(before.size());
      check_same(products.calls(reinterpret_cast<float*>(out.data()), random.pick(0, 1) == 1, random.pick(0, 1) == 1),
                 before, out);
    }
}

TEST_CASE("gpu joint products: only of the same activations, for decoding, and up to four") {
  Random random(32);
  Products products(DType::q4_k, most_joint, 3, random);
  DeviceArray<float> out(size_t{3} * products.all_rows());
  const std::vector<KernelCall> calls = products.calls(out.data(), false, false);
  REQUIRE(all_join(calls));
  CHECK(!joins(calls, calls[0]));
  CHECK(!joins({}, calls[0]));
  const std::span<const KernelCall> first(calls.data(), 1);
  const auto changed = [&](auto change) {
    auto call = std::get<MatmulCall>(calls[1]);
    change(call);
    return joins(first, call);
  };
  CHECK(changed([](MatmulCall&) {}));
  CHECK(!changed([](MatmulCall& c) { c.x += 64; }));
  CHECK(!changed([](MatmulCall& c) { c.dtype = DType::q6_k; }));
  CHECK(!changed([](MatmulCall& c) { c.cols *= 2; }));
  CHECK(!changed([](MatmulCall& c) { c.n_tokens = 2; }));
  CHECK(!changed([](MatmulCall& c) { c.prompt = true; }));
  CHECK(!changed([](MatmulCall& c) { c.x_format = ActFormat::f32; }));
  CHECK(!changed([&](MatmulCall& c) { c.out = out.data() + products.rows[0] - 1; }));
  CHECK(!changed([&](MatmulCall& c) { c.out = out.data(); }));
  CHECK(!joins(first, KernelCall(SoftcapCall{out.data(), 1, 32, 1.0f})));
}

TEST_CASE("gpu norm and quantize: as one behind the other") {
  Random random(33);
  for (const uint32_t cols : {32u, 64u, 576u, 2048u, 2080u, 5120u})
    for (const uint32_t rows : {1u, 3u}) {
      std::vector<float> x = random.normals(size_t{rows} * cols, random.one_of({1e-3f, 1.0f, 1e4f}));
      if (rows == 3) x[cols + 5] = INFINITY, x[2 * cols + 31] = NAN;
      const DeviceArray<float> device_x(x), weight(random.normals(cols));
      const uint64_t floats = uint64_t{rows} * cols * sizeof(float), q8 = act_row_bytes(ActFormat::q8, cols);
      DeviceArray<std::byte> memory((floats + 63) / 64 * 64 + rows * q8);
      auto* out = reinterpret_cast<float*>(memory.data());
      const RmsNormCall norm{device_x.data(), random.pick(0, 1) == 1 ? weight.data() : nullptr, 1e-5f, rows, cols, out};
      const QuantizeCall quantize{out, ActFormat::q8, rows, cols, memory.data() + (floats + 63) / 64 * 64};
      check_same({norm, quantize}, Bytes(memory.size(), std::byte{7}), memory);
      QuantizeCall other = quantize;
      other.x = device_x.data();
      CHECK(!joins(std::vector<KernelCall>{norm}, other));
      RmsNormCall residual = norm;
      residual.accumulate = true;
      CHECK(!joins(std::vector<KernelCall>{residual}, quantize));
    }
}

TEST_CASE("gpu gated activation and quantize: as one behind the other, also in place") {
  Random random(34);
  for (const uint32_t cols : {32u, 96u, 1536u})
    for (const uint32_t rows : {1u, 4u}) {
      const std::vector<float> gate = random.normals(size_t{rows} * cols, 3);
      const DeviceArray<float> up(random.normals(size_t{rows} * cols));
      const uint64_t floats = (gate.size() * sizeof(float) + 63) / 64 * 64;
      DeviceArray<std::byte> memory(floats + rows * act_row_bytes(ActFormat::q8, cols));
      Bytes before = bytes_of(gate);
      before.resize(memory.size(), std::byte{7});
      auto* in_place = reinterpret_cast<float*>(memory.data());
      const Activation activation = random.pick(0, 1) == 1 ? Activation::silu : Activation::gelu_tanh;
      check_same({GatedActCall{in_place, up.data(), activation, rows, cols, in_place},
                  QuantizeCall{in_place, ActFormat::q8, rows, cols, memory.data() + floats}},
                 before, memory);
      const GatedActCall apart{in_place, up.data(), activation, rows, cols, in_place, 2 * cols};
      CHECK(!joins(std::vector<KernelCall>{apart}, QuantizeCall{in_place, ActFormat::q8, rows, cols, nullptr}));
    }
}

namespace {

// Queries, keys and values of some tokens, and pages 1 and 2 of two sequences behind them in one array.
struct Heads {
  uint32_t n_heads, n_kv_heads, dim, n_rot, page_tokens, n_tokens;
  KvType type;
  bool pairs;
  std::vector<TokenSlot> slots;
  uint64_t floats() const { return uint64_t{n_tokens} * (n_heads + 2 * n_kv_heads) * dim; }
  uint64_t page_bytes() const { return uint64_t{n_kv_heads} * page_tokens * dim * kv_bytes(type); }
  uint64_t pages_at() const { return (floats() * sizeof(float) + 63) / 64 * 64; }
};

Heads random_heads(Random& random) {
  Heads h{};
  h.n_kv_heads = random.pick(1, 4);
  h.n_heads = h.n_kv_heads * random.pick(1, 3);
  h.dim = random.one_of({32u, 64u, 80u, 128u});
  h.n_rot = random.pick(0, 1) == 1 ? h.dim : h.dim / 2;
  h.page_tokens = random.one_of({16u, 64u});
  h.type = random.pick(0, 1) == 1 ? KvType::f16 : KvType::f32;
  h.pairs = random.pick(0, 1) == 1;
  const uint32_t p = h.page_tokens;
  h.slots = {{0, p - 1, 0}, {0, p, 0}, {1, p + 5, 0}, {0, 3 * p - 1, 0}, {1, 3 * p, 0}};
  h.slots.resize(random.pick(1, 5));
  h.n_tokens = static_cast<uint32_t>(h.slots.size());
  return h;
}

}  // namespace

TEST_CASE("gpu rotations and append: as one behind the other") {
  Random random(35);
  for (int round = 0; round < 24; ++round) {
    const Heads h = random_heads(random);
    DeviceArray<std::byte> memory(h.pages_at() + 8 * h.page_bytes());
    Bytes before = bytes_of(random.normals(h.floats()));
    before.resize(memory.size(), std::byte{0x5a});
    std::vector<std::byte*> pages;
    for (uint32_t i = 0; i < 8; ++i) pages.push_back(memory.data() + h.pages_at() + i * h.page_bytes());
    const Table<std::byte*> table(pages);
    std::byte* const* at = table.data();
    const Table<KvSpan> spans({{at, at + 4, 1, 2, 0}, {at + 2, at + 6, 1, 2, 0}});
    const Table<TokenSlot> slots(h.slots);
    const DeviceArray<float> angles(random.normals(size_t{h.n_tokens} * h.n_rot));
    auto* q = reinterpret_cast<float*>(memory.data());
    float *k = q + uint64_t{h.n_tokens} * h.n_heads * h.dim, *v = k + uint64_t{h.n_tokens} * h.n_kv_heads * h.dim;
    const RopeCall keys{k, angles.data(), h.n_tokens, h.n_kv_heads, h.dim, h.n_rot, h.pairs};
    RopeCall queries = keys;
    queries.x = q;
    queries.n_heads = h.n_heads;
    const KvAppendCall append{k, v, slots.data(), spans.data(), h.n_tokens, h.n_kv_heads, h.dim, h.page_tokens, h.type};
    check_same({queries, keys, append}, before, memory);
    check_same({queries, keys}, before, memory);  // held back for an append that did not come
    KvAppendCall others = append;
    others.k = v;
    CHECK(!joins(std::vector<KernelCall>{queries, keys}, others));
  }
}
