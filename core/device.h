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

  // The form in which this device wants the activations that meet weights of `weights` in a product, of a prompt or
  // of tokens that are decoded. Never depends on how many tokens there are.
  virtual ActFormat act_format(DType weights, Compute compute, bool prompt) const = 0;

  // Bytes from one row of `cols` activations to the next in that form: 4 * cols for f32, since plain rows
  // are contiguous and used as they are; a multiple of 64 for q8; of those in groups an act_group-th of a group.
  virtual uint64_t act_row_bytes(ActFormat format, uint32_t cols) const = 0;
};

}  // namespace sluice
