// The device of the tests of gpu/engine: a real GPU, which has what it has.
#pragma once

#include <cstdint>

namespace sluice::test {

struct DeviceOptions {
  uint64_t device_bytes = 0;
};
struct DeviceScope {
  explicit DeviceScope(const DeviceOptions&) {}
};

}  // namespace sluice::test
