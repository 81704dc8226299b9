#include "gpu/measure.h"

namespace sluice::gpu {

Result<GpuRates> measure(int /*device*/, const MeasureOptions& /*options*/) {
  return Status(Code::unavailable, "this build has no GPU device");
}

Result<double> link_rate(int /*device*/, Memory& /*host*/, double /*seconds*/) {
  return Status(Code::unavailable, "this build has no GPU device");
}

}  // namespace sluice::gpu
