// Sampler: from the logits of a position, or the best of them, to the next token.
//
// The steps and their order are llama.cpp's defaults, as far as they exist here: repeat penalty, top-k,
// top-p, min-p, temperature, then one draw. All arithmetic after the logits is done in double by plain
// operations, exponentials included, so that a seed gives the same tokens on every machine. Ties are
// broken by the lower id.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/batch.h"
#include "core/kernel.h"
#include "engine/sampling/rng.h"
#include "sluice/status.h"

namespace sluice::engine {

struct SamplerOptions {
  float temperature = 0.8f;     // 0: greedy, the best logit after the penalty
  int32_t top_k = 40;           // keep the k best; 0 or less: all
  float top_p = 0.95f;          // keep the least set of the best whose probability reaches p; 1: all
  float min_p = 0.05f;          // keep what is at least min_p times as probable as the best; 0: all
  float repeat_penalty = 1.0f;  // logits of recent tokens: divided if positive, else multiplied; 1: none
  int32_t repeat_last_n = 64;   // how many tokens are recent; 0: none
  uint64_t seed = 0;
};

// Threads: one at a time. Nothing is allocated after make().
class Sampler {
 public:
  // invalid_argument names the option that makes no sense.
  static Result<Sampler> make(const SamplerOptions& options, uint32_t n_vocab);

  // Chooses among logits.size() == n_vocab tokens. A logit that is not finite is an error that names its
  // token: nothing good can follow it. The chosen token is not taken for accepted.
  Result<int32_t> sample(std::span<const float> logits);

  // The best tokens with which the next sample() does what it does with all logits, once all tokens before are
  // accepted; k is 0 where it needs the logits: without a top-k, and beyond what a BestLogitsCall serves. Holds until
  // the next call.
  BestTokens wanted() const;
  // Chooses among them: the wanted().k that the device found. One that is not finite is an error, as above.
  Result<int32_t> sample(std::span<const TokenLogit> best);

  // Tells that a token is now part of the text, prompt tokens included: the repeat penalty looks back on
  // these. Ids outside the vocabulary are ignored.
  void accept(int32_t token);

  // Forgets accepted tokens and begins the random sequence of the seed anew.
  void reset();

  // The tokens among which the last sample() drew, with their probabilities, which sum to 1. Valid until
  // the next call. Greedy: the one token.
  struct Candidate {
    double probability;
    float logit;
    int32_t id;
  };
  std::span<const Candidate> candidates() const { return candidates_; }

  uint64_t memory_bytes() const;

  // e^x for x <= 0, by the same operations everywhere; relative error below 1e-14.
  static double exp_negative(double x);

 private:
  Sampler(const SamplerOptions& options, uint32_t n_vocab);
  bool pick_greedily(std::span<const float> logits);
  Status load(std::span<const float> logits);
  void penalize();
  std::span<const int32_t> recent() const;
  int32_t draw();
  size_t best() const;
  void keep_top_k();
  void keep_top_p();
  void keep_min_p();
  void weigh(double temperature);

  SamplerOptions options_;
  uint32_t n_vocab_;
  Rng rng_;
  std::vector<Candidate> candidates_;
  bool sorted_ = false;          // candidates_, best first
  std::vector<int32_t> recent_;  // a ring of repeat_last_n tokens
  size_t n_accepted_ = 0;
};

}  // namespace sluice::engine
