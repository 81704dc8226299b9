// Reports as JSON, one object each, without a newline. Bytes that are not UTF-8 become U+FFFD, numbers
// that are not finite null.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "sluice/engine.h"

namespace sluice::apps {

// {"prompt_tokens","tokens","text","stop_reason","timings","memory","tiers"}
std::string run_json(const Generation& generation, const Engine& engine);

// The fields of PlanReport and ModelReport by their names; lists of pairs become {"name","bytes"} (memory),
// {"path","bytes"} (files) and one object (metadata).
std::string plan_json(const PlanReport& plan);
std::string model_json(const ModelReport& model);

std::string tokens_json(std::span<const int32_t> tokens);  // {"tokens"}

// {"ppl","n"}, without the braces for callers that add to it.
std::string perplexity_fields(double perplexity, uint64_t n);

// [{"id","logprob","argmax","margin"}…]
std::string scores_json(std::span<const TokenScore> scores);

}  // namespace sluice::apps
