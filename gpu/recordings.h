// Recordings: calls that were captured as CUDA graphs, by key, and the capture that is under way.
//
// Kernels are captured on a stream of their own, so that the queue's own stream may be asked and waited for
// meanwhile. Of the recordings the latest used are kept.
// Threads: one at a time.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <memory>
#include <string_view>
#include <variant>
#include <vector>

#include "core/kernel.h"
#include "sluice/status.h"

namespace sluice::gpu {

// What the calls of one kernel came to.
struct LaunchedKernels {
  std::string_view name;
  uint64_t calls = 0;
  uint64_t bytes = 0, flops = 0;  // by core/kernel.h's cost()
};

class Recordings {
 public:
  static constexpr size_t n_kernels = std::variant_size_v<KernelCall>;
  static constexpr size_t most = 16;

  struct Recording {
    uint64_t key = 0;
    cudaGraphExec_t graph = nullptr;
    std::array<LaunchedKernels, n_kernels> kernels;  // what one replay comes to
  };

  Recordings() = default;
  Recordings(const Recordings&) = delete;
  ~Recordings();

  // Capturing: what is launched into stream() is kept. end() gives the recording, or what prevented it.
  Status begin(uint64_t key);
  bool capturing() const { return current_ != nullptr; }
  cudaStream_t stream() const { return stream_; }
  void count(const KernelCall& call);
  Status end();
  void abandon();

  bool has(uint64_t key) const;
  void forget();  // all that were kept
  // Now the latest used. Null if there is none.
  const Recording* use(uint64_t key);

 private:
  size_t place_of(uint64_t key) const;

  cudaStream_t stream_ = nullptr;  // made when first needed
  std::unique_ptr<Recording> current_;
  std::vector<std::unique_ptr<Recording>> kept_;  // the latest used last
};

}  // namespace sluice::gpu
