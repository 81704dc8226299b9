// What the tests of the GPU stand on: the stand-in for CUDA, which must be back at its baseline at the end,
// and queues with some memory of both sides.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <string>

#include "core/bytes.h"
#include "gpu/gpu_copy_queue.h"
#include "gpu/gpu_memory.h"
#include "gpu/gpu_queue.h"
#include "tests/gpu/standin_scope.h"

namespace sluice::testing {

struct GpuRigOptions {
  standin::Options standin;
  gpu::Completions::Options completions;
};

// Both ways of signalling: with stream memory operations and without.
inline GpuRigOptions rig_options(bool memory_operations) {
  GpuRigOptions o;
  o.standin.memory_operations = memory_operations;
  return o;
}

// A matrix of `rows` x `cols` floats travels to the device, is turned there, and comes back: `turn()` is a
// CopyRows that reverses the order of rows.
class GpuRig {
 public:
  static constexpr uint32_t rows = 8, cols = 64;
  static constexpr uint64_t matrix_bytes = rows * cols * sizeof(float);

  explicit GpuRig(const GpuRigOptions& o = {}) : standin(o.standin) {
    const Status status = start(o);
    REQUIRE_MESSAGE(status.ok(), status.message());
  }
  // Nothing is made yet: start() may fail.
  struct Unstarted {};
  GpuRig(const GpuRigOptions& o, Unstarted) : standin(o.standin) {}

  Status start(const GpuRigOptions& o) {
    SLUICE_ASSIGN_OR_RETURN(pinned, gpu::PinnedMemory::allocate(o.completions.device, 64 * KiB));
    SLUICE_ASSIGN_OR_RETURN(device, gpu::GpuMemory::create(o.completions.device, 64 * KiB));
    SLUICE_ASSIGN_OR_RETURN(completions, gpu::Completions::create(o.completions));
    SLUICE_ASSIGN_OR_RETURN(compute, gpu::GpuQueue::create(*completions, gpu::KernelContext{4, nullptr, 0}));
    SLUICE_ASSIGN_OR_RETURN(up, gpu::GpuCopyQueue::create(*completions));
    SLUICE_ASSIGN_OR_RETURN(down, gpu::GpuCopyQueue::create(*completions));
    for (uint32_t i = 0; i < rows; ++i) order()[i] = rows - 1 - i;
    return {};
  }

  // Host memory: a matrix to send, one to receive, and the order of rows. Device memory: two matrices.
  float* sent() const { return reinterpret_cast<float*>(pinned->base()); }
  float* received() const { return reinterpret_cast<float*>(pinned->base() + matrix_bytes); }
  uint32_t* order() const { return reinterpret_cast<uint32_t*>(pinned->base() + 2 * matrix_bytes); }
  float* matrix(uint64_t i) const { return reinterpret_cast<float*>(device->base() + i * matrix_bytes); }

  void send(uint64_t i) { up->copy(bytes(matrix(i)), bytes(sent()), matrix_bytes); }
  void receive(uint64_t i) { down->copy(bytes(received()), bytes(matrix(i)), matrix_bytes); }
  void turn(uint64_t from, uint64_t to) {
    compute->launch(CopyRowsCall{matrix(from), order(), rows, cols, matrix(to)});
  }
  void fill(float seed) {
    for (uint32_t i = 0; i < rows * cols; ++i) sent()[i] = seed + static_cast<float>(i);
    std::memset(received(), 0xFF, matrix_bytes);
  }
  bool came_back(float seed, bool turned) const {
    for (uint32_t r = 0; r < rows; ++r)
      for (uint32_t c = 0; c < cols; ++c)
        if (received()[r * cols + c] != seed + static_cast<float>((turned ? rows - 1 - r : r) * cols + c)) return false;
    return true;
  }
  uint64_t launched() const {
    uint64_t n = 0;
    for (const auto& kernel : compute->totals()) n += kernel.calls;
    return n;
  }

  StandIn standin;  // dies last
  Timeline host;    // what the test signals; queues may look at it until they are gone
  std::unique_ptr<gpu::PinnedMemory> pinned;
  std::unique_ptr<gpu::GpuMemory> device;
  std::unique_ptr<gpu::Completions> completions;
  std::unique_ptr<gpu::GpuQueue> compute;
  std::unique_ptr<gpu::GpuCopyQueue> up, down;

 private:
  static std::byte* bytes(float* p) { return reinterpret_cast<std::byte*>(p); }
};

inline void sleep_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

}  // namespace sluice::testing
