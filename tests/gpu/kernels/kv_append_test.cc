#include <algorithm>

#include "core/dtype.h"
#include "tests/cpu/kernel_inputs.h"
#include "tests/gpu/kernels/device_data.h"

using namespace sluice;
using namespace sluice::gpu;
using namespace sluice::gpu::test;
using sluice::cpu::test::Random;

namespace {

// Two sequences of three pages; the span of each shows pages 1 and 2 only. Pages 0..3 hold keys, 4..7 values.
struct Pages {
  std::vector<DeviceArray<std::byte>> memory;
  std::vector<Table<std::byte*>> tables;
  std::vector<KvSpan> spans;

  explicit Pages(size_t page_bytes) {
    for (int i = 0; i < 8; ++i) memory.emplace_back(std::vector<std::byte>(page_bytes, std::byte{0x5a}));
    for (size_t first = 0; first < 8; first += 2)
      tables.emplace_back(std::vector<std::byte*>{memory[first].data(), memory[first + 1].data()});
    for (size_t s = 0; s < 2; ++s) spans.push_back({tables[s].data(), tables[2 + s].data(), 1, 2, 0});
  }
};

uint32_t stored(KvType type, float x) {
  return type == KvType::f16 ? float_to_half(x) : __builtin_bit_cast(uint32_t, x);
}

void check(KvType type, uint32_t heads, uint32_t dim, uint32_t page_tokens, Random& random) {
  const size_t width = kv_bytes(type);
  const Pages pages(size_t{heads} * page_tokens * dim * width);
  const std::vector<TokenSlot> tokens = {{0, page_tokens - 1, 0},     {0, page_tokens, 0}, {1, page_tokens + 5, 0},
                                         {0, 3 * page_tokens - 1, 0}, {1, 0, 0},           {1, 3 * page_tokens, 0}};
  const auto n = static_cast<uint32_t>(tokens.size());
  std::vector<float> k = random.normals(size_t{n} * heads * dim), v = random.normals(size_t{n} * heads * dim, 1e-5f);
  k[0] = 70000, k[heads * dim] = 1e-9f, k[heads * dim + 1] = -INFINITY, k[heads * dim + 2] = 65519.9f;
  const DeviceArray<float> device_k(k), device_v(v);
  const Table<TokenSlot> token_table(tokens);
  const Table<KvSpan> span_table(pages.spans);
  run_call(KvAppendCall{device_k.data(), device_v.data(), token_table.data(), span_table.data(), n, heads, dim,
                        page_tokens, type});

  std::vector<std::vector<std::byte>> expected(8, std::vector<std::byte>(pages.memory[0].size(), std::byte{0x5a}));
  for (uint32_t t = 0; t < n; ++t) {
    const uint32_t page = tokens[t].cell / page_tokens;
    if (page < 1 || page > 2) continue;
    for (uint32_t h = 0; h < heads; ++h)
      for (uint32_t d = 0; d < dim; ++d) {
        const size_t at = ((size_t{h} * page_tokens + tokens[t].cell % page_tokens) * dim + d) * width;
        const size_t from = (size_t{t} * heads + h) * dim + d, first = tokens[t].seq * 2 + page - 1;
        const uint32_t key = stored(type, k[from]), value = stored(type, v[from]);
        std::memcpy(expected[first].data() + at, &key, width);
        std::memcpy(expected[4 + first].data() + at, &value, width);
      }
  }
  for (size_t i = 0; i < 8; ++i) CHECK(pages.memory[i].get() == expected[i]);
}

}  // namespace

TEST_CASE("gpu kv_append: every token in its page, as core rounds halves; all else is left alone") {
  Random random(9);
  for (const KvType type : {KvType::f16, KvType::f32})
    for (int round = 0; round < 8; ++round)
      check(type, random.pick(1, 5), random.one_of({32u, 40u, 64u, 80u, 100u}), random.one_of({16u, 64u}), random);
}
