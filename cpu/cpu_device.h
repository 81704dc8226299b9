// CpuDevice: the host's cores as a device that computes in host memory.
//
// Activations meet F32, F16 and BF16 weights as floats, quantized weights as q8 blocks (as floats under
// Compute::f32). Threads: as Device and Queue; totals() from any.
#pragma once

#include <memory>
#include <string>

#include "core/device.h"
#include "cpu/cpu_queue.h"
#include "cpu/isa.h"

namespace sluice::cpu {

struct CpuOptions {
  uint32_t n_threads = 0;  // 0: one for each physical core that this process may use
  Isa isa = best_isa();
  Trace* trace = nullptr;  // outlives the device
  // One thread to a core, where there are enough cores; more threads than cores are never pinned.
  bool pin = true;
  // How long a thread looks for work before it sleeps. Longer where short work of others comes in between.
  uint32_t patience_us = 100;
};

class CpuDevice : public Device {
 public:
  static constexpr uint32_t max_threads = 1024;

  // invalid_argument for more than max_threads, unavailable if this CPU lacks the ISA.
  static Result<std::unique_ptr<CpuDevice>> create(const CpuOptions& options = {});

  std::string name() const override { return "cpu"; }
  TierId memory_tier() const override { return host_tier; }
  Queue& queue() override { return *queue_; }
  ActFormat act_format(DType weights, Compute compute) const override;
  uint64_t act_row_bytes(ActFormat format, uint32_t cols) const override;

  uint32_t n_threads() const { return n_threads_; }
  std::array<KernelTotals, n_kernels> totals() const { return queue_->totals(); }
  std::string describe() const;  // "2 threads, pinned, avx512": for people

 private:
  CpuDevice(std::unique_ptr<CpuQueue> queue, uint32_t n_threads, bool pinned, const char* isa)
      : queue_(std::move(queue)), n_threads_(n_threads), pinned_(pinned), isa_(isa) {}

  std::unique_ptr<CpuQueue> queue_;
  uint32_t n_threads_;
  bool pinned_;
  const char* isa_;
};

}  // namespace sluice::cpu
