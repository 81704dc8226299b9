#include "engine/charges.h"

#include "core/error.h"

namespace sluice::engine {
namespace {

bool is_of_weights(const plan::NamedBytes& item) { return item.name == "weights" || item.name == "staging"; }

}  // namespace

Status Charges::charge(const plan::Holding& holding, bool weights) {
  for (const plan::NamedBytes& item : holding.memory) {
    if (is_of_weights(item) != weights) continue;
    SLUICE_ASSIGN_OR_RETURN(auto charge, budget_.reserve(item.bytes, item.name));
    (weights ? weights_ : lasting_).push_back(std::move(charge));
  }
  return {};
}

// What the plan promised always fits.
Status Charges::take(const plan::Holding& holding) {
  SLUICE_RETURN_IF_ERROR(charge(holding, false));
  return charge(holding, true);
}

void Charges::drop_weights() { weights_.clear(); }

Status Charges::take_weights(const plan::Holding& holding) {
  SLUICE_RETURN_IF_ERROR(budget_.set_limit(holding.budget));
  return charge(holding, true);
}

}  // namespace sluice::engine
