#include "tests/cpu/reference.h"
#include "tests/gpu/kernels/device_data.h"

using namespace sluice;
using namespace sluice::gpu;
using namespace sluice::gpu::test;
using sluice::test::decode;
using sluice::test::half_value;
using sluice::test::random_weights;
using sluice::test::Rng;
using sluice::test::Weight;

namespace {

constexpr DType all_types[] = {DType::f32,  DType::f16,  DType::bf16, DType::q4_0, DType::q4_1,
                               DType::q5_0, DType::q5_1, DType::q8_0, DType::q4_k, DType::q6_k};

std::vector<float> gather(DType type, const std::vector<const std::byte*>& rows, uint32_t cols, float scale) {
  const Table<const std::byte*> table(rows);
  const auto n = static_cast<uint32_t>(rows.size());
  return result_of(GatherRowsCall{table.data(), type, n, cols, scale, nullptr}, rows.size() * cols);
}

// Every 16-bit pattern in one row.
std::vector<float> all_patterns(DType type) {
  std::vector<uint16_t> row(65536);
  for (uint32_t i = 0; i < 65536; ++i) row[i] = static_cast<uint16_t>(i);
  const DeviceArray<uint16_t> device(row);
  return gather(type, {reinterpret_cast<const std::byte*>(device.data())}, 65536, 1.0f);
}

}  // namespace

TEST_CASE("gpu gather_rows: rows that lie anywhere, against double precision, with one rounding") {
  Rng rng(3);
  for (const DType type : all_types) {
    CAPTURE(info(type).name);
    const uint32_t block = info(type).block_elements;
    for (const uint32_t blocks : {1u, 2u, 5u, 37u}) {
      const uint32_t cols = blocks * block;
      std::vector<std::vector<std::byte>> host;
      std::vector<DeviceArray<std::byte>> storage;
      std::vector<const std::byte*> rows;
      for (uint32_t i = 0; i < 7; ++i) {
        host.emplace_back(row_bytes(type, cols));
        random_weights(type, cols, rng, host.back().data());
        storage.emplace_back(host.back(), rng() % 8 * 2);
      }
      for (const auto& row : storage) rows.push_back(row.data());
      rows.push_back(rows[2]);
      host.push_back(host[2]);
      const std::vector<float> got = gather(type, rows, cols, 1.0f);
      for (size_t r = 0; r < rows.size(); ++r) {
        const std::vector<Weight> exact = decode(type, host[r].data(), cols);
        for (uint32_t c = 0; c < cols; ++c) {
          const double value = exact[c].value(), error = std::abs(double{got[r * cols + c]} - value);
          REQUIRE(error <= (block == 1 ? 0.0 : std::abs(value) * 0x1p-24));
        }
      }
    }
  }
}

TEST_CASE("gpu gather_rows: the scale multiplies") {
  Rng rng(4);
  std::vector<std::byte> host(row_bytes(DType::q4_1, 96));
  random_weights(DType::q4_1, 96, rng, host.data());
  const DeviceArray<std::byte> row(host, 2);
  std::vector<float> once = gather(DType::q4_1, {row.data()}, 96, 1.0f);
  for (float& f : once) f *= 11.3137f;
  CHECK(gather(DType::q4_1, {row.data()}, 96, 11.3137f) == once);
}

TEST_CASE("gpu gather_rows: all 65,536 halves and bfloat16s") {
  const std::vector<float> halves = all_patterns(DType::f16), bf16s = all_patterns(DType::bf16);
  for (uint32_t i = 0; i < 65536; ++i) {
    const double exact = half_value(static_cast<uint16_t>(i));
    if (std::isnan(exact)) REQUIRE(std::isnan(halves[i]));
    else REQUIRE(__builtin_bit_cast(uint32_t, halves[i]) == __builtin_bit_cast(uint32_t, static_cast<float>(exact)));
    const float bf16 = __builtin_bit_cast(float, i << 16);
    if (std::isnan(bf16)) REQUIRE(std::isnan(bf16s[i]));
    else REQUIRE(__builtin_bit_cast(uint32_t, bf16s[i]) == i << 16);
  }
}

TEST_CASE("gpu gather_rows: a type without rows is an error") {
  const Status status = run(stream(), GatherRowsCall{nullptr, DType::i32, 1, 1, 1.0f, nullptr}, KernelContext{});
  CHECK(status.code() == Code::unsupported);
  CHECK(status.message() == "gpu: no gather_rows kernel for I32");
}
