// What the host's products and something else that uses its memory leave of one another.
#pragma once

#include <functional>

#include "cpu/cpu_device.h"

namespace sluice::engine {

struct Beside {
  double other = 0;    // what `other` returned while products ran
  double compute = 1;  // the products' rate meanwhile, as a part of what it is alone; 0.01 to 1
};

// Runs other() in a thread of its own while `device` multiplies with `weights` bytes of weights, which caches should
// not hold. Takes `seconds` / 2 before that, and those bytes and some MiB.
Result<Beside> measure_beside(cpu::CpuDevice& device, uint64_t weights, double seconds,
                              const std::function<Result<double>()>& other);

}  // namespace sluice::engine
