// Functions of the driver that the runtime has no name for.
//
// They come through the runtime's entry-point query: libcuda is never linked, so that a program with CUDA
// built in starts where no driver is.
// Threads: any.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include "sluice/status.h"

namespace sluice::gpu {

struct Driver {
  decltype(&cuStreamWaitValue64) stream_wait_value = nullptr;
  decltype(&cuStreamWriteValue64) stream_write_value = nullptr;
  bool stream_memory_operations = false;  // whether this device has the two; if not they are null

  // unavailable without a driver.
  static Result<Driver> load(int device);
};

}  // namespace sluice::gpu
