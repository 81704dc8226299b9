// The stand-in for CUDA while one test runs: fresh at the start, and at the end everything was given back.
#pragma once

#include <doctest/doctest.h>
#include <sluice_standin/control.h>

namespace sluice::testing {

// A fresh device.
class StandIn {
 public:
  explicit StandIn(const standin::Options& options = {}) { standin::reset(options); }
  ~StandIn() {
    const standin::Live live = standin::live();
    CHECK(live.device_bytes == 0);
    CHECK(live.registered_bytes == 0);
    CHECK(live.host_bytes == 0);
    CHECK(live.streams == 0);
    CHECK(live.events == 0);
    CHECK(live.graphs == 0);
    CHECK(standin::errors().empty());
    standin::reset();
  }
};

}  // namespace sluice::testing
