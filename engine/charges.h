// Charges: what the memory of a site is given to, each line of its plan charged to one Budget before it is taken.
//
// Weights, with their staging, are charged apart from the rest: a resize gives them back and takes others, within a
// limit that may be another one.
// Threads: one at a time, but for budget(), which any thread may ask.
#pragma once

#include <string>
#include <vector>

#include "offload/plan/plan.h"
#include "offload/tier/budget.h"

namespace sluice::engine {

class Charges {
 public:
  // `flag` is what sets the budget: "--ram".
  Charges(std::string flag, const plan::Holding& holding) : budget_(std::move(flag), holding.budget) {}

  Status take(const plan::Holding& holding);  // all of it; once
  void drop_weights();
  // For what the plan says now, behind drop_weights().
  Status take_weights(const plan::Holding& holding);
  // Where nothing but the limit is another one.
  Status set_limit(uint64_t limit) { return budget_.set_limit(limit); }

  const tier::Budget& budget() const { return budget_; }

 private:
  Status charge(const plan::Holding& holding, bool weights);

  tier::Budget budget_;
  std::vector<tier::Reservation> lasting_, weights_;
};

}  // namespace sluice::engine
