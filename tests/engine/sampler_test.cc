#include "engine/sampling/sampler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "tests/cpu/best_logits_cases.h"

using namespace sluice;
using namespace sluice::engine;

namespace {

SamplerOptions plain() {
  return {.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0, .repeat_penalty = 1, .repeat_last_n = 0, .seed = 1};
}

Sampler make(const SamplerOptions& options, size_t n) {
  auto made = Sampler::make(options, static_cast<uint32_t>(n));
  REQUIRE_MESSAGE(made.ok(), made.status().message());
  return *std::move(made);
}

int32_t sample(Sampler& sampler, const std::vector<float>& logits) {
  const auto token = sampler.sample(logits);
  REQUIRE_MESSAGE(token.ok(), token.status().message());
  return *token;
}

std::vector<float> random_logits(std::mt19937& rng, size_t n, float spread) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(n);
  for (float& x : logits) x = normal(rng);
  return logits;
}

// The same steps written plainly: everything sorted, std::exp, in llama.cpp's order.
std::vector<std::pair<int32_t, double>> reference(std::vector<float> logits, const SamplerOptions& o,
                                                  const std::vector<int32_t>& recent) {
  std::vector<bool> seen(logits.size());
  for (const int32_t t : recent) {
    const auto i = static_cast<size_t>(t);
    if (seen[i]) continue;
    seen[i] = true;
    logits[i] = logits[i] > 0 ? logits[i] / o.repeat_penalty : logits[i] * o.repeat_penalty;
  }
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto logit = [&](int32_t id) { return static_cast<double>(logits[static_cast<size_t>(id)]); };
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return logit(a) > logit(b); });
  if (o.top_k > 0) ids.resize(std::min(ids.size(), static_cast<size_t>(o.top_k)));
  const double top = logit(ids[0]);
  double total = 0;
  for (const int32_t id : ids) total += std::exp(logit(id) - top);
  double sum = 0;
  for (size_t i = 0; i < ids.size() && o.top_p < 1; ++i) {
    sum += std::exp(logit(ids[i]) - top) / total;
    if (sum >= static_cast<double>(o.top_p)) ids.resize(i + 1);
  }
  while (std::exp(logit(ids.back()) - top) < static_cast<double>(o.min_p)) ids.pop_back();
  std::vector<std::pair<int32_t, double>> out;
  total = 0;
  for (const int32_t id : ids) {
    out.emplace_back(id, std::exp((logit(id) - top) / static_cast<double>(o.temperature)));
    total += out.back().second;
  }
  for (auto& [id, p] : out) p /= total;
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace

TEST_CASE("the distribution equals a plain computation, whatever the options") {
  std::mt19937 rng(1);
  for (int round = 0; round < 400; ++round) {
    const size_t n = 1 + rng() % 300;
    SamplerOptions o;
    o.temperature = 0.1f + static_cast<float>(rng() % 30) / 10;
    o.top_k = static_cast<int32_t>(rng() % 4 ? rng() % 60 : 0);
    o.top_p = rng() % 3 ? static_cast<float>(rng() % 101) / 100 : 1;
    o.min_p = rng() % 3 ? static_cast<float>(rng() % 50) / 100 : 0;
    o.repeat_penalty = 0.5f + static_cast<float>(rng() % 20) / 10;
    o.repeat_last_n = static_cast<int32_t>(rng() % 20);
    Sampler sampler = make(o, n);
    std::vector<int32_t> accepted;
    for (size_t i = rng() % 40; i > 0; --i) {
      accepted.push_back(static_cast<int32_t>(rng() % n));
      sampler.accept(accepted.back());
    }
    const size_t recent = std::min(accepted.size(), static_cast<size_t>(o.repeat_last_n));
    const std::vector<float> logits = random_logits(rng, n, 0.5f + static_cast<float>(rng() % 5));
    const int32_t token = sample(sampler, logits);
    const auto expected = reference(logits, o, {accepted.end() - static_cast<std::ptrdiff_t>(recent), accepted.end()});
    auto got = std::vector<Sampler::Candidate>(sampler.candidates().begin(), sampler.candidates().end());
    std::sort(got.begin(), got.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
    REQUIRE(got.size() == expected.size());
    double sum = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      CHECK(got[i].id == expected[i].first);
      CHECK(std::abs(got[i].probability - expected[i].second) < 1e-12);
      sum += got[i].probability;
    }
    CHECK(std::abs(sum - 1) < 1e-12);
    CHECK(std::any_of(got.begin(), got.end(), [&](const auto& c) { return c.id == token; }));
  }
}

namespace {

// What a device gives a sampler that asks for the best tokens.
std::vector<TokenLogit> best_tokens(const BestTokens& wanted, const std::vector<float>& logits) {
  cpu::test::BestCase c{1, static_cast<uint32_t>(logits.size()), logits, {}, {}};
  c.recent.assign(wanted.recent.begin(), wanted.recent.end());
  c.rows = {{wanted.k, static_cast<uint32_t>(c.recent.size()), wanted.penalty}};
  return cpu::test::best_of(c, 0);
}

}  // namespace

TEST_CASE("the best tokens give the same tokens and the same distribution as all logits, for any seed and options" *
          doctest::test_suite("one thread")) {
  std::mt19937 rng(12);
  for (int round = 0; round < 300; ++round) {
    const size_t n = 61 + rng() % 400;
    SamplerOptions o;
    o.temperature = static_cast<float>(rng() % 20) / 10;
    o.top_k = 1 + static_cast<int32_t>(rng() % 60);
    o.top_p = rng() % 3 ? static_cast<float>(rng() % 101) / 100 : 1;
    o.min_p = rng() % 3 ? static_cast<float>(rng() % 50) / 100 : 0;
    o.repeat_penalty = rng() % 3 ? 0.5f + static_cast<float>(rng() % 20) / 10 : 1;
    o.repeat_last_n = static_cast<int32_t>(rng() % 20);
    o.seed = rng();
    Sampler some = make(o, n), all = make(o, n);
    for (int i = 0; i < 30; ++i) {
      std::vector<float> logits = random_logits(rng, n, 3);
      if (round % 2 == 0)
        for (float& x : logits) x = std::round(x);
      const BestTokens wanted = some.wanted();
      REQUIRE(wanted.k == (o.temperature == 0 ? 1 : o.top_k));
      const auto token = some.sample(best_tokens(wanted, logits));
      REQUIRE(token.ok());
      REQUIRE(*token == sample(all, logits));
      REQUIRE(some.candidates().size() == all.candidates().size());
      for (size_t c = 0; c < all.candidates().size(); ++c) {
        REQUIRE(some.candidates()[c].id == all.candidates()[c].id);
        REQUIRE(some.candidates()[c].logit == all.candidates()[c].logit);
        REQUIRE(some.candidates()[c].probability == all.candidates()[c].probability);
      }
      for (Sampler* sampler : {&some, &all}) sampler->accept(*token);
    }
  }
}

TEST_CASE("what cannot be drawn from the best tokens is drawn from all logits") {
  const auto k = [](auto change) {
    SamplerOptions o;
    o.repeat_penalty = 1.1f;
    o.repeat_last_n = 2000;
    change(o);
    Sampler sampler = make(o, 1000);
    for (uint32_t i = 0; i < most_recent; ++i) sampler.accept(3);
    const uint32_t before = sampler.wanted().k;
    sampler.accept(4);
    CHECK(sampler.wanted().k == (o.repeat_last_n > 1024 ? 0 : before));
    return before;
  };
  CHECK(k([](auto&) {}) == 40);
  CHECK(k([](auto& o) { o.repeat_last_n = 1024; }) == 40);
  CHECK(k([](auto& o) { o.top_k = 256; }) == 256);
  CHECK(k([](auto& o) { o.top_k = 257; }) == 0);
  CHECK(k([](auto& o) { o.top_k = 0; }) == 0);
  CHECK(k([](auto& o) { o.top_k = -1; }) == 0);
  CHECK(k([](auto& o) { o.temperature = 0, o.top_k = 0; }) == 1);
  SamplerOptions o;
  CHECK(make(o, 40).wanted().k == 0);  // no fewer than there are
  CHECK(make(o, 41).wanted().k == 40);
  o.temperature = 0;
  CHECK(make(o, 1).wanted().k == 1);
}

TEST_CASE("best tokens that are too few, or not finite, are an error") {
  SamplerOptions o;
  o.top_k = 2;
  Sampler sampler = make(o, 5);
  const TokenLogit good{1, 3}, bad{std::nanf(""), 4};
  CHECK(sampler.sample(std::vector<TokenLogit>{good}).status().code() == Code::invalid_argument);
  const auto token = sampler.sample(std::vector<TokenLogit>{bad, good});
  REQUIRE(!token.ok());
  CHECK(token.status().message().find("token 4 is nan") != std::string::npos);
  CHECK(make(plain(), 5).sample(std::vector<TokenLogit>{}).status().code() == Code::invalid_argument);
}

TEST_CASE("draws follow the distribution (chi-square)") {
  std::mt19937 rng(2);
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    SamplerOptions o = plain();
    o.temperature = temperature;
    o.top_k = 12;
    const std::vector<float> logits = random_logits(rng, 40, 1);
    Sampler sampler = make(o, logits.size());
    std::vector<int> counts(logits.size());
    const int n = 40000;
    for (int i = 0; i < n; ++i) ++counts[static_cast<size_t>(sample(sampler, logits))];
    double chi = 0;
    int outside = n, cells = 0;
    for (const auto& c : sampler.candidates()) {
      const double expected = n * c.probability;
      const double off = counts[static_cast<size_t>(c.id)] - expected;
      outside -= counts[static_cast<size_t>(c.id)];
      if (expected < 5) continue;
      chi += off * off / expected;
      ++cells;
    }
    CHECK(outside == 0);
    REQUIRE(cells >= 6);
    CHECK(chi < 36);  // p < 0.001 for up to 12 cells is 31.3
  }
}

TEST_CASE("temperature 0 takes the best, the lower id among equals") {
  SamplerOptions o = plain();
  o.temperature = 0;
  Sampler sampler = make(o, 5);
  CHECK(sample(sampler, {1, 3, 2, 3, -1}) == 1);
  CHECK(sampler.candidates().size() == 1);
  o.repeat_penalty = 2;
  o.repeat_last_n = 2;
  sampler = make(o, 3);
  sampler.accept(1);
  CHECK(sample(sampler, {2, 3, 1}) == 0);
  sampler.accept(1);  // twice in the window counts once
  CHECK(sample(sampler, {1, 3, 0}) == 1);
  sampler.accept(2);
  sampler.accept(2);  // 1 has left the window
  CHECK(sample(sampler, {2, 3, 1}) == 1);
  CHECK(sample(sampler, {-2, -3, -1}) == 0);
  sampler.accept(99);  // ignored
  sampler.accept(-1);
  sampler.reset();
  CHECK(sample(sampler, {2, 2, 3}) == 2);
}

TEST_CASE("temperature 0 finds the first of the best among many, and what is not finite anywhere") {
  std::mt19937 rng(8);
  SamplerOptions o = plain();
  o.temperature = 0;
  for (const size_t n : {1, 15, 16, 17, 100, 1000}) {
    Sampler sampler = make(o, n);
    for (int round = 0; round < 50; ++round) {
      std::vector<float> logits = random_logits(rng, n, 2);
      for (float& x : logits) x = std::round(x);
      const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
      CHECK(sample(sampler, logits) == static_cast<int32_t>(best));
      logits[rng() % n] = round % 2 == 0 ? std::nanf("") : -std::numeric_limits<float>::infinity();
      CHECK(!sampler.sample(logits).ok());
    }
  }
}

TEST_CASE("top-k keeps exactly k, also among equals; top-p keeps the least set") {
  SamplerOptions o = plain();
  o.top_k = 3;
  Sampler sampler = make(o, 8);
  sample(sampler, std::vector<float>(8, 1.0f));
  std::vector<int32_t> ids;
  for (const auto& c : sampler.candidates()) ids.push_back(c.id);
  CHECK(ids == std::vector<int32_t>{0, 1, 2});

  o = plain();
  o.top_p = 0.75f;
  sampler = make(o, 4);
  const auto kept = [&](std::vector<float> probabilities) {
    for (float& p : probabilities) p = std::log(p);
    sample(sampler, probabilities);
    return sampler.candidates().size();
  };
  CHECK(kept({0.5f, 0.3f, 0.15f, 0.05f}) == 2);
  CHECK(kept({0.15f, 0.05f, 0.3f, 0.5f}) == 2);
  CHECK(kept({0.8f, 0.1f, 0.05f, 0.05f}) == 1);
  CHECK(kept({0.3f, 0.3f, 0.1f, 0.3f}) == 3);
}

TEST_CASE("a seed gives the same tokens, everywhere") {
  std::mt19937 rng(4);
  const std::vector<float> logits = random_logits(rng, 1000, 2);
  SamplerOptions o = plain();
  o.seed = 42;
  Sampler a = make(o, logits.size()), b = make(o, logits.size());
  o.seed = 43;
  Sampler other = make(o, logits.size());
  std::vector<int32_t> first, second, third;
  for (int i = 0; i < 50; ++i) {
    first.push_back(sample(a, logits));
    second.push_back(sample(b, logits));
    third.push_back(sample(other, logits));
  }
  CHECK(first == second);
  CHECK(first != third);
  a.reset();
  CHECK(sample(a, logits) == first[0]);
  // The generator itself, from the authors' C code (xoshiro256starstar.c, splitmix64.c) run with seed 42.
  Rng generator(42);
  CHECK(generator.next() == 1546998764402558742u);
  CHECK(generator.next() == 6990951692964543102u);
  CHECK(generator.next() == 12544586762248559009u);
}

TEST_CASE("exp is exact enough") {
  for (double x = 0; x > -700; x -= 0.37) CHECK(std::abs(Sampler::exp_negative(x) / std::exp(x) - 1) < 1e-14);
  CHECK(Sampler::exp_negative(0) == 1);
  CHECK(Sampler::exp_negative(-1e300) == 0);
}

TEST_CASE("extreme but finite logits") {
  SamplerOptions o = plain();
  o.repeat_penalty = 0.01f;
  o.repeat_last_n = 4;
  o.temperature = 1e-30f;
  Sampler sampler = make(o, 3);
  sampler.accept(0);
  const float max = std::numeric_limits<float>::max();
  CHECK(sample(sampler, {max / 2, -max, 0}) == 0);
  CHECK(sample(sampler, {-max, -max, -max / 2}) == 0);
  CHECK(sampler.candidates()[0].probability == 1);
}

TEST_CASE("what is not finite, or makes no sense, is an error") {
  Sampler sampler = make(plain(), 3);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    const auto token = sampler.sample(std::vector<float>{0, bad, 1});
    REQUIRE(!token.ok());
    CHECK(token.status().message().find("token 1") != std::string::npos);
  }
  CHECK(sampler.sample(std::vector<float>{0, 1}).status().code() == Code::invalid_argument);
  const auto fails = [](auto change, const char* name) {
    SamplerOptions o = plain();
    change(o);
    const auto made = Sampler::make(o, 10);
    REQUIRE(!made.ok());
    CHECK(made.status().code() == Code::invalid_argument);
    CHECK(made.status().message().find(name) != std::string::npos);
  };
  fails([](auto& o) { o.temperature = -1; }, "temperature");
  fails([](auto& o) { o.temperature = std::nanf(""); }, "temperature");
  fails([](auto& o) { o.top_p = 1.5f; }, "top-p");
  fails([](auto& o) { o.min_p = -0.1f; }, "min-p");
  fails([](auto& o) { o.repeat_penalty = 0; }, "repeat penalty");
  fails([](auto& o) { o.repeat_last_n = -1; }, "repeat-last-n");
  CHECK(!Sampler::make(plain(), 0).ok());
}

TEST_CASE("no memory is taken after the start") {
  std::mt19937 rng(9);
  SamplerOptions o;
  Sampler sampler = make(o, 5000);
  const uint64_t before = sampler.memory_bytes();
  const Sampler::Candidate* data = nullptr;
  for (int i = 0; i < 20; ++i) {
    const std::vector<float> logits = random_logits(rng, 5000, 1);
    sampler.accept(sample(sampler, logits));
    if (data) CHECK(sampler.candidates().data() == data);
    data = sampler.candidates().data();
  }
  CHECK(sampler.memory_bytes() == before);
}
