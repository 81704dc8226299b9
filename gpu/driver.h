// Functions of the driver that the runtime has no name for.
//
// They come through the runtime's entry-point query: libcuda is never linked, so that a program with CUDA
// built in starts where no driver is.
// Threads: any; load_kernels_early() while no other thread reads the environment.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include "sluice/status.h"

namespace sluice::gpu {

// To be called before the first call of CUDA: kernels are then loaded when a device is first used. Left to
// itself CUDA loads a kernel at its first launch, for which the whole device has to come to rest, and a
// stream that waits for the caller's next step never does. A CUDA_MODULE_LOADING of the user's stays.
void load_kernels_early();

struct Driver {
  decltype(&cuStreamWaitValue64) stream_wait_value = nullptr;
  decltype(&cuStreamWriteValue64) stream_write_value = nullptr;
  bool stream_memory_operations = false;  // whether this device has the two; if not they are null

  // unavailable without a driver.
  static Result<Driver> load(int device);
};

}  // namespace sluice::gpu
