#include "bench/kernels/machine_rates.h"

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "core/trace.h"

namespace sluice::bench {
namespace {

constexpr uint64_t rounds = 2'000'000;
constexpr uint32_t chains = 12;  // independent sums, enough to hide an instruction's latency

std::atomic<uint64_t> sink;  // keeps results alive

struct Piece {
  const std::byte* begin;
  uint64_t bytes;
};

[[gnu::target("avx2")]] void read_share(const void* context, cpu::Share share) {
  const auto& all = *static_cast<const Piece*>(context);
  const uint64_t lines = all.bytes / 256;
  const std::byte* p = all.begin + lines * share.index / share.count * 256;
  const std::byte* end = all.begin + lines * (share.index + 1) / share.count * 256;
  __m256i sum[4] = {};
  for (; p < end; p += 256)
    for (int i = 0; i < 8; ++i)
      sum[i % 4] = _mm256_xor_si256(sum[i % 4], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32 * i)));
  const __m256i both = _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
  sink += static_cast<uint64_t>(_mm256_extract_epi64(both, 0));
}

[[gnu::target("avx512f,avx512vnni")]] void dot_512(const void*, cpu::Share) {
  __m512i acc[chains] = {};
  const __m512i a = _mm512_set1_epi32(0x01020304), b = _mm512_set1_epi32(0x05060708);
  for (uint64_t i = 0; i < rounds; ++i)
    for (__m512i& x : acc) asm volatile("vpdpbusd %2, %1, %0" : "+v"(x) : "v"(a), "v"(b));
  alignas(64) uint64_t all[8];
  _mm512_store_si512(all, acc[0]);
  sink += all[0];
}

[[gnu::target("avx2")]] void dot_256(const void*, cpu::Share) {
  __m256i acc[chains] = {};
  const __m256i a = _mm256_set1_epi32(0x01020304), b = _mm256_set1_epi32(0x05060708);
  for (uint64_t i = 0; i < rounds; ++i)
    for (__m256i& x : acc) {
      __m256i product;
      asm volatile("vpmaddubsw %2, %1, %0" : "=x"(product) : "x"(a), "x"(b));
      x = _mm256_add_epi16(x, product);
    }
  __m256i sum = acc[0];
  for (uint32_t i = 1; i < chains; ++i) sum = _mm256_add_epi16(sum, acc[i]);
  sink += static_cast<uint64_t>(_mm256_extract_epi64(sum, 0));
}

}  // namespace

double seconds_of(cpu::Team& team, cpu::Team::Job job, const void* context) {
  team.run(job, context);
  std::vector<double> runs;
  double total = 0;
  while (runs.size() < 5 || (total < 0.3 && runs.size() < 1000)) {
    const uint64_t start = now_ns();
    team.run(job, context);
    runs.push_back(static_cast<double>(now_ns() - start) * 1e-9);
    total += runs.back();
  }
  std::nth_element(runs.begin(), runs.begin() + static_cast<int64_t>(runs.size() / 2), runs.end());
  return runs[runs.size() / 2];
}

double read_rate(cpu::Team& team, std::span<const std::byte> data) {
  const Piece piece{data.data(), data.size()};
  return static_cast<double>(data.size()) / seconds_of(team, read_share, &piece);
}

double int8_rate(cpu::Team& team, bool avx512) {
  const double products = static_cast<double>(rounds) * chains * (avx512 ? 64 : 32) * team.size();
  return 2 * products / seconds_of(team, avx512 ? dot_512 : dot_256, nullptr);
}

}  // namespace sluice::bench
