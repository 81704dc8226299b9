#include "engine/sampling/sampler.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace sluice::engine {
namespace {

constexpr int32_t max_recent = 1 << 20;

bool better(const Sampler::Candidate& a, const Sampler::Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}
// For std heaps, which keep the greatest in front.
bool worse(const Sampler::Candidate& a, const Sampler::Candidate& b) { return better(b, a); }

Status check_range(const char* name, float value, float low, float high) {
  if (value >= low && value <= high) return {};
  return error(Code::invalid_argument, "{} is {}, but must be between {} and {}", name, value, low, high);
}

Status not_finite(const TokenLogit& token) {
  return error(Code::internal, "the logit of token {} is {}", token.id, token.logit);
}

}  // namespace

Result<Sampler> Sampler::make(const SamplerOptions& options, uint32_t n_vocab) {
  if (n_vocab == 0 || n_vocab > INT32_MAX) {
    return error(Code::invalid_argument, "cannot sample from a vocabulary of {} tokens", n_vocab);
  }
  SLUICE_RETURN_IF_ERROR(check_range("temperature", options.temperature, 0, 1000));
  SLUICE_RETURN_IF_ERROR(check_range("top-p", options.top_p, 0, 1));
  SLUICE_RETURN_IF_ERROR(check_range("min-p", options.min_p, 0, 1));
  SLUICE_RETURN_IF_ERROR(check_range("repeat penalty", options.repeat_penalty, 0.01f, 100));
  if (options.repeat_last_n < 0 || options.repeat_last_n > max_recent) {
    return error(Code::invalid_argument, "repeat-last-n is {}, but must be between 0 and {}", options.repeat_last_n,
                 max_recent);
  }
  return Sampler(options, n_vocab);
}

Sampler::Sampler(const SamplerOptions& options, uint32_t n_vocab)
    : options_(options), n_vocab_(n_vocab), rng_(options.seed) {
  candidates_.reserve(n_vocab);
  recent_.resize(options.repeat_penalty == 1.0f ? 0 : static_cast<size_t>(options.repeat_last_n));
}

void Sampler::accept(int32_t token) {
  if (recent_.empty() || token < 0 || static_cast<uint32_t>(token) >= n_vocab_) return;
  recent_[n_accepted_++ % recent_.size()] = token;
}

void Sampler::reset() {
  n_accepted_ = 0;
  rng_ = Rng(options_.seed);
}

Result<int32_t> Sampler::sample(std::span<const float> logits) {
  if (options_.temperature == 0 && recent_.empty() && pick_greedily(logits)) return candidates_[0].id;
  SLUICE_RETURN_IF_ERROR(load(logits));
  penalize();
  if (options_.temperature == 0) {
    candidates_[0] = candidates_[best()];
    candidates_.resize(1);
    candidates_[0].probability = 1;
    return candidates_[0].id;
  }
  keep_top_k();
  return draw();
}

BestTokens Sampler::wanted() const {
  const bool greedy = options_.temperature == 0;
  const auto k = greedy ? 1 : static_cast<uint32_t>(std::max(options_.top_k, 0));
  if (k > most_best || (k >= n_vocab_ && !greedy) || recent().size() > most_recent) return {};
  return {k, options_.repeat_penalty, recent()};
}

Result<int32_t> Sampler::sample(std::span<const TokenLogit> best) {
  if (best.empty() || best.size() != wanted().k)
    return error(Code::invalid_argument, "{} best tokens, {} are wanted", best.size(), wanted().k);
  if (!std::isfinite(best[0].logit)) return not_finite(best[0]);
  candidates_.clear();
  for (const TokenLogit& token : best) candidates_.push_back({1, token.logit, token.id});
  sorted_ = true;
  return options_.temperature == 0 ? candidates_[0].id : draw();
}

// Among the candidates.
int32_t Sampler::draw() {
  keep_top_p();
  keep_min_p();
  weigh(static_cast<double>(options_.temperature));
  double left = rng_.uniform();
  for (const Candidate& c : candidates_) {
    left -= c.probability;
    if (left < 0) return c.id;
  }
  return candidates_[best()].id;  // the sum fell short of 1 by rounding
}

// The best of the plain logits, without a candidate for each; false if load() has something to object to.
bool Sampler::pick_greedily(std::span<const float> logits) {
  if (logits.size() != n_vocab_) return false;
  constexpr size_t lanes = 16;
  float most[lanes], not_finite[lanes] = {};
  std::fill(most, most + lanes, logits[0]);
  const size_t whole = logits.size() / lanes * lanes;
  for (size_t i = 0; i < whole; i += lanes)
    for (size_t k = 0; k < lanes; ++k) {
      const float x = logits[i + k];
      most[k] = x > most[k] ? x : most[k];
      not_finite[k] += x - x;  // NaN if x is infinite or NaN
    }
  for (size_t i = whole; i < logits.size(); ++i) {
    most[0] = std::max(most[0], logits[i]);
    not_finite[0] += logits[i] - logits[i];
  }
  for (const float x : not_finite)
    if (x != 0) return false;
  const float best = *std::max_element(most, most + lanes);
  const auto id = static_cast<int32_t>(std::find(logits.begin(), logits.end(), best) - logits.begin());
  candidates_.assign(1, {1, best, id});
  return true;
}

Status Sampler::load(std::span<const float> logits) {
  if (logits.size() != n_vocab_) {
    return error(Code::invalid_argument, "{} logits for a vocabulary of {} tokens", logits.size(), n_vocab_);
  }
  candidates_.resize(n_vocab_);
  sorted_ = false;
  for (uint32_t id = 0; id < n_vocab_; ++id) {
    const TokenLogit token{logits[id], static_cast<int32_t>(id)};
    if (!std::isfinite(token.logit)) return not_finite(token);
    candidates_[id] = {0, token.logit, token.id};
  }
  return {};
}

void Sampler::penalize() {
  // Before anything is sorted candidates_ is in order of ids; probability marks what was seen.
  for (const int32_t token : recent()) {
    Candidate& c = candidates_[static_cast<size_t>(token)];
    if (c.probability != 0) continue;
    c.probability = 1;
    c.logit = penalized_logit(c.logit, options_.repeat_penalty);
  }
}

std::span<const int32_t> Sampler::recent() const { return {recent_.data(), std::min(n_accepted_, recent_.size())}; }

size_t Sampler::best() const {
  const auto at = std::min_element(candidates_.begin(), candidates_.end(), better);
  return static_cast<size_t>(at - candidates_.begin());
}

void Sampler::keep_top_k() {
  if (options_.top_k <= 0 || static_cast<size_t>(options_.top_k) >= candidates_.size()) return;
  const auto end = candidates_.begin() + options_.top_k;
  std::nth_element(candidates_.begin(), end - 1, candidates_.end(), better);
  candidates_.erase(end, candidates_.end());
  std::sort(candidates_.begin(), candidates_.end(), better);
  sorted_ = true;
}

// Takes the best one by one from a heap, so that a peaked distribution is not sorted as a whole.
void Sampler::keep_top_p() {
  if (options_.top_p >= 1) return;
  weigh(1);
  if (!sorted_) std::make_heap(candidates_.begin(), candidates_.end(), worse);
  double sum = 0;
  size_t kept = 0;
  while (kept < candidates_.size()) {
    if (!sorted_) std::pop_heap(candidates_.begin(), candidates_.end() - static_cast<std::ptrdiff_t>(kept), worse);
    const Candidate& taken = sorted_ ? candidates_[kept] : candidates_[candidates_.size() - 1 - kept];
    sum += taken.probability;
    ++kept;
    if (sum >= static_cast<double>(options_.top_p)) break;
  }
  if (!sorted_) std::reverse(candidates_.begin(), candidates_.end());
  candidates_.resize(kept);
  sorted_ = true;
}

void Sampler::keep_min_p() {
  if (options_.min_p <= 0) return;
  const double top = candidates_[sorted_ ? 0 : best()].logit;
  const double least = static_cast<double>(options_.min_p);
  std::erase_if(candidates_, [&](const Candidate& c) { return exp_negative(c.logit - top) < least; });
}

// Sets the probabilities of the candidates.
void Sampler::weigh(double temperature) {
  const double top = candidates_[sorted_ ? 0 : best()].logit;
  double sum = 0;
  for (Candidate& c : candidates_) {
    c.probability = exp_negative((c.logit - top) / temperature);
    sum += c.probability;
  }
  for (Candidate& c : candidates_) c.probability /= sum;
}

double Sampler::exp_negative(double x) {
  if (x < -700) return 0;
  // x = n ln 2 + r, |r| <= ln 2 / 2; ln 2 in two parts so that n ln2_high is exact.
  constexpr double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;
  const double n = std::floor(x * 1.4426950408889634 + 0.5);
  const double r = (x - n * ln2_high) - n * ln2_low;
  double sum = 1, term = 1;
  for (int i = 1; i <= 14; ++i) {
    term = term * r / i;
    sum += term;
  }
  return std::ldexp(sum, static_cast<int>(n));
}

uint64_t Sampler::memory_bytes() const {
  return sizeof(*this) + candidates_.capacity() * sizeof(Candidate) + recent_.capacity() * sizeof(int32_t);
}

}  // namespace sluice::engine
