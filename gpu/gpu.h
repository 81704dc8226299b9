// Gpu: a GPU as an engine uses it: a device, its memory, the host memory that it reaches, and the copies between.
//
// Nothing of CUDA is in this header: where no toolkit was found, gpu/absent/ implements it, and open_gpu() says
// that this build has no GPU device. Which of the two a program gets is decided when it is linked.
// Threads: as the parts; opening and closing by one.
#pragma once

#include <memory>
#include <string>

#include "core/device.h"
#include "core/memory.h"
#include "core/trace.h"
#include "sluice/status.h"

namespace sluice::gpu {

struct GpuRequest {
  int device = 0;              // as CUDA counts them
  TierId memory_tier{1};       // that Gpu::weights() will be
  uint64_t memory_bytes = 0;   // of the GPU's memory, for the caller to carve
  uint64_t weight_bytes = 0;   // more of it, which can be replaced
  uint64_t scratch_bytes = 0;  // for the kernels alone, see kernel_scratch_bytes()
  uint64_t shared_bytes = 0;   // of host memory that kernels read and write directly
  // From which weights are copied. Pinned here, or, where that is refused, read through a pinned ring. Outlives
  // the Gpu, or drop_weights(); may be null.
  Memory* host = nullptr;
  // Of the host too, from which within() may copy: pinned, or slower where that is refused. Outlives the Gpu; may be
  // null.
  Memory* pages = nullptr;
  Trace* trace = nullptr;  // outlives the Gpu
};

class Gpu {
 public:
  virtual ~Gpu() = default;
  virtual Device& device() = 0;
  virtual Memory& memory() = 0;        // GpuRequest::memory_bytes of the device's
  virtual Memory& weights() = 0;       // GpuRequest::weight_bytes of it, or what take_weights() took
  virtual Memory& shared() = 0;        // GpuRequest::shared_bytes of the host's, at the same address for both
  virtual CopyQueue& to_device() = 0;  // from GpuRequest::host to weights()
  virtual CopyQueue& within() = 0;     // from memory(), and from the host's, to memory()
  // Gives weights() back to the device and lets go of GpuRequest::host; recordings, which name them, are forgotten.
  // Nothing that was enqueued may still use either.
  virtual void drop_weights() = 0;
  // Takes others, after drop_weights(). Where it fails it holds none of them and may be called again; to_device() may
  // be another queue from then on.
  virtual Status take_weights(uint64_t bytes, Memory* host) = 0;
  virtual Status lost() const = 0;                 // why the device no longer works; ok while it does
  virtual uint64_t bytes_computed_on() const = 0;  // that kernels read and wrote
  virtual uint64_t bytes_to_device() const = 0;    // that were copied there
  virtual const std::string& warning() const = 0;  // what is slower than it should be, and why; or empty
  virtual std::string describe() const = 0;        // "NVIDIA H100, 114 SMs": for people
};

// over_budget where the memory is no longer there, unavailable where the device does not work, or there is none.
Result<std::unique_ptr<Gpu>> open_gpu(const GpuRequest& request);

// The device's memory as it is now, once this process has its context there.
struct GpuSpace {
  uint64_t total = 0, free = 0;
  uint64_t context = 0;  // an estimate of what this process's context takes of it
};
Result<GpuSpace> gpu_space(int device);

// What else than our kernels decides bits: the library for products of prompts, with its version; or empty.
std::string gpu_library(int device);

// What an allocation of so many bytes takes of the device's memory.
uint64_t gpu_memory_cost(uint64_t bytes);

// Scratch with which the kernels of a model of these sizes run well.
struct ScratchShape {
  uint32_t n_heads = 0, head_dim = 0;
  uint32_t widest_row = 0;  // of a matrix, in values
  uint32_t context = 0, step_tokens = 0;
  uint32_t n_vocab = 0;
};
uint64_t kernel_scratch_bytes(const ScratchShape& shape);

}  // namespace sluice::gpu
