// The device of the tests of gpu/engine: the stand-in.
#pragma once

#include "tests/gpu/standin_scope.h"

namespace sluice::test {

using DeviceOptions = standin::Options;
using DeviceScope = testing::StandIn;

}  // namespace sluice::test
