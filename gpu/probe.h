// probe(): is there a GPU that this build can use, and if not, why not.
//
// Nothing of CUDA is in this header: where no toolkit was found, gpu/absent/ implements it, and the build
// says that it has no GPU device. Which of the two a program gets is decided when it is linked.
// Threads: any. It never hangs and never ends the process; without a driver it takes microseconds, with one
// as long as the driver takes to start.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sluice::gpu {

struct DeviceFacts {
  int index = 0;  // as CUDA counts them, after CUDA_VISIBLE_DEVICES
  std::string name;
  uint64_t memory_bytes = 0;
  uint32_t n_sms = 0;
  int major = 0, minor = 0;  // compute capability
  std::string pci_bus_id;    // "0000:3b:00.0"

  std::string describe() const;  // one line for people
};

struct Probe {
  bool built = false;                // this build has a GPU device
  bool available = false;            // and at least one device is here for it
  std::string reason;                // one line, empty if available: no driver, a driver too old, no device, …
  std::vector<DeviceFacts> devices;  // those that can be used
};

Probe probe();

}  // namespace sluice::gpu
