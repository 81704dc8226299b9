// Sizes, numbers and tables for people.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sluice/engine.h"

namespace sluice::apps {

std::string format_size(uint64_t bytes);  // "93.8 MiB"
std::string format_rate(double per_s);    // "21.3", "412"; "-" for nothing

// Columns as wide as their widest cell. `alignment` has an 'l' or 'r' for each column.
class Table {
 public:
  explicit Table(std::string_view alignment) : alignment_(alignment) {}
  void add(std::vector<std::string> cells);
  std::string to_string() const;

 private:
  std::string alignment_;
  std::vector<std::vector<std::string>> rows_;
};

// "93.8 MiB model: 38.1 MiB resident, 55.0 MiB streamed per token, context 512, predicted 21 tok/s, bound
// by disk"; with a GPU "22.1 GB of 42.5 on GPU, 20.4 in RAM, context 8192, predicted 8.3 tok/s, bound by RAM".
std::string plan_summary(const PlanReport& plan);

// What the plan promises for a prompt of n tokens: it takes a time between those of the lengths that the plan names.
// Shorter ones take as long as the shortest.
double planned_prefill_tok_s(const PlanReport& plan, uint32_t n);

// What the plan promised and the run gave, tier by tier.
std::string run_statistics(const Engine& engine, const Generation& generation);

}  // namespace sluice::apps
