// sluice_bench_sampling [n_vocab]: what the choice of the next token costs the host, in us, for one row of logits:
// from all of them, from the best ones with finding these on one thread, and from those that a device has found.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "core/trace.h"
#include "cpu/isa.h"
#include "engine/sampling/sampler.h"

using namespace sluice;
using engine::Sampler;
using engine::SamplerOptions;

namespace {

constexpr int rounds = 300, rows = 8;

// The median of `rounds` times that work(row of logits) takes.
template <class Work>
double median_us(const std::vector<std::vector<float>>& logits, const Work& work) {
  std::vector<uint64_t> times;
  for (int i = 0; i < rounds; ++i) {
    const uint64_t start = now_ns();
    work(logits[static_cast<size_t>(i % rows)]);
    times.push_back(now_ns() - start);
  }
  std::nth_element(times.begin(), times.begin() + rounds / 2, times.end());
  return static_cast<double>(times[rounds / 2]) * 1e-3;
}

void bench(const char* name, const SamplerOptions& options, const std::vector<std::vector<float>>& logits) {
  const auto n_vocab = static_cast<uint32_t>(logits.front().size());
  Sampler sampler = Sampler::make(options, n_vocab).value();
  for (int32_t i = 0; i < 64; ++i) sampler.accept(i * 97);
  const BestTokens wanted = sampler.wanted();
  const BestLogitsRow asked{wanted.k, static_cast<uint32_t>(wanted.recent.size()), wanted.penalty};
  std::vector<TokenLogit> best(most_best);
  const auto find = [&](const std::vector<float>& row) {
    const cpu::KernelTable& kernels = cpu::kernels(cpu::best_isa());
    run(kernels, BestLogitsCall{row.data(), &asked, wanted.recent.data(), 1, n_vocab, best.data()}, {});
  };
  const auto draw = [&](const std::vector<float>&) { sampler.sample(std::span(best.data(), wanted.k)).value(); };
  const double all = median_us(logits, [&](const std::vector<float>& row) { sampler.sample(row).value(); });
  const double found = median_us(logits, [&](const std::vector<float>& row) { find(row), draw(row); });
  std::printf("%-24s %10.1f %14.1f %14.1f\n", name, all, found, median_us(logits, draw));
}

}  // namespace

int main(int argc, char** argv) {
  const long asked = argc > 1 ? std::atol(argv[1]) : 128256;
  if (asked < 1024 || asked > 1 << 24) return 2;
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<std::vector<float>> logits(rows, std::vector<float>(static_cast<size_t>(asked)));
  for (auto& row : logits)
    for (float& x : row) x = normal(random);
  std::printf("%ld tokens, us           all logits  best, by the CPU  best, given\n", asked);
  bench("default options", {}, logits);
  bench("repeat penalty 1.1", {.repeat_penalty = 1.1f}, logits);
  bench("top-k 256", {.top_k = 256}, logits);
  bench("greedy", {.temperature = 0}, logits);
  return 0;
}
