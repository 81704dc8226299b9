// What a TierManager promises, whatever store and memory it has. A new store or kind of memory gets all
// of it by one call.
#pragma once

#include <functional>

#include "tests/tier/rig.h"

namespace sluice::testing {

using RigFactory = std::function<std::unique_ptr<Rig>(const RigOptions&)>;

// On the host's tier, or on the device's, which the factory's rigs then have.
void tier_contract(const RigFactory& make, bool on_device);

}  // namespace sluice::testing
