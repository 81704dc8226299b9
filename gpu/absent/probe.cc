// What a build without CUDA says.
#include "gpu/probe.h"

namespace sluice::gpu {

std::string DeviceFacts::describe() const { return name; }

Probe probe() {
  Probe result;
  result.reason = "this build has no GPU device";
  return result;
}

}  // namespace sluice::gpu
