// Streams: threads that work off operations in order.
//
// What the host did before it enqueued comes before the operation; what a stream did comes before what the host does
// after it has waited for it. Between streams, events alone make an order.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <deque>
#include <vector>

#include "tests/standin/grid.h"
#include "tests/standin/runtime.h"

namespace standin {

// Dynamic shared memory of a block: what the smallest of the supported GPUs allow.
inline constexpr int max_shared_bytes = 99 * 1024;

class Operation : public Counted {
 public:
  // On the stream's thread, without the lock; not once the device has failed.
  virtual cudaError_t run(CUstream_st& stream) = 0;
  // After run(), or in its place.
  virtual void end() {}
};

// What a graph holds. Not changed once it has been captured.
class Operations : public Counted {
 public:
  std::vector<Ref<Operation>> list;
};

struct Task {
  Ref<Operation> operation;
  Clock enqueued;
};

// With the lock held.
bool alive(const Runtime& state, cudaStream_t stream);
cudaError_t enqueue(Runtime& state, cudaStream_t stream, Ref<Operation> operation);
// Runs an operation unless the device has failed; from the stream's thread.
void execute(CUstream_st& stream, Operation& operation);

CUresult wait_value(CUstream stream, CUdeviceptr address, cuuint64_t value, unsigned flags);
CUresult write_value(CUstream stream, CUdeviceptr address, cuuint64_t value, unsigned flags);

}  // namespace standin

struct CUstream_st {
  standin::Wakeup work;
  std::deque<standin::Task*> tasks;
  uint64_t enqueued = 0, finished = 0;
  bool closing = false;
  standin::Ref<standin::Operations> capture;  // while it captures
  cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;
  bool capture_broken = false;
  standin::Clock done;            // after each operation
  standin::Grid* grid = nullptr;  // of its thread
};
