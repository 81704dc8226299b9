// Generating with a Sampler straight on the executor, from the best tokens of each step or from all logits.
#pragma once

#include "engine/sampling/sampler.h"
#include "tests/engine/engine_rig.h"

namespace sluice::test {

enum class From { best, logits };

// n tokens behind `prompt`, in a sequence of their own.
inline std::vector<int32_t> generated(engine::Runtime& runtime, const engine::SamplerOptions& o,
                                      const std::vector<int32_t>& prompt, size_t n, From from) {
  const uint32_t n_vocab = runtime.graph().n_vocab;
  engine::Sampler sampler = must(engine::Sampler::make(o, n_vocab));
  const SequenceId sequence = must(runtime.kv().create());
  std::vector<int32_t> tokens = prompt;
  for (const int32_t token : prompt) sampler.accept(token);
  for (size_t done = 0; tokens.size() < prompt.size() + n;) {
    Batch batch;
    for (; done < tokens.size(); ++done)
      batch.tokens.push_back({tokens[done], static_cast<int32_t>(done), sequence, 0, done + 1 == tokens.size()});
    const BestTokens best = from == From::best ? sampler.wanted() : BestTokens{};
    batch.tokens.back().best = best;
    const plan::StepResult row = must(runtime.step(batch));
    tokens.push_back(must(best.k > 0 ? sampler.sample(std::span(row.best, best.k))
                                     : sampler.sample(std::span(row.logits, n_vocab))));
    sampler.accept(tokens.back());
  }
  runtime.kv().destroy(sequence);
  return {tokens.end() - static_cast<long>(n), tokens.end()};
}

// Of all kinds: greedy, penalized, few and many tokens, all of them, one at a time.
inline std::vector<engine::SamplerOptions> kinds_of_sampling() {
  return {{},
          {.temperature = 0},
          {.temperature = 0, .repeat_penalty = 1.5f},
          {.temperature = 2, .top_k = 5, .top_p = 1, .min_p = 0, .seed = 3},
          {.temperature = 1.5f, .top_k = 60, .repeat_penalty = 1.3f, .repeat_last_n = 8, .seed = 4},
          {.temperature = 1, .top_k = 0, .repeat_penalty = 1.1f, .seed = 5}};
}

}  // namespace sluice::test
