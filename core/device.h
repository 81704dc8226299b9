// Device: something that computes: a team of CPU cores, a GPU, or a simulation of one.
//
// A device has one compute queue and runs the kernels of core/kernel.h on memory it can reach.
// Implementations: cpu/cpu_device.h, tests/support/sim_device.h.
#pragma once

#include <string>

#include "core/block.h"
#include "core/queue.h"

namespace sluice {

struct DeviceId {
  uint16_t value = 0;
  auto operator<=>(const DeviceId&) const = default;
};

class Device {
 public:
  virtual ~Device() = default;

  virtual std::string name() const = 0;
  virtual TierId memory_tier() const = 0;
  virtual Queue& queue() = 0;

  // The form in which this device wants the activations that meet weights of `weights` in a product.
  virtual ActFormat act_format(DType weights, Compute compute) const = 0;

  // Bytes of one row of `cols` activations in that form, a multiple of 64.
  virtual uint64_t act_row_bytes(ActFormat format, uint32_t cols) const = 0;
};

}  // namespace sluice
