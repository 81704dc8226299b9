// CpuDevice: the host's cores as a device that computes in host memory.
//
// Activations meet F32, F16 and BF16 weights as floats, quantized weights as q8 blocks (as floats under
// Compute::f32), in prompts in groups where there is a DenseProduct. Threads: as Device and Queue; totals() from any.
#pragma once

#include <memory>
#include <string>

#include "core/device.h"
#include "cpu/cpu_queue.h"
#include "cpu/isa.h"

namespace sluice::cpu {

// How products of prompts are made, of quantized weights under Compute::fast: by the kernels of 8-bit integers that
// decoding uses, or (cpu/dense_product.h) as bf16 by a library, or by tiles of 8-bit integers in blocks of 256 where
// the weights have such blocks. automatic: where the processor has matrix units the last, with bf16 for other weights
// if there is the library, and else the first.
enum class Prompts : uint8_t { automatic, int8, bf16, wide8 };

struct CpuOptions {
  uint32_t n_threads = 0;  // 0: one for each physical core that this process may use
  Isa isa = best_isa();
  Trace* trace = nullptr;  // outlives the device
  // One thread to a core, where there are enough cores; more threads than cores are never pinned.
  bool pin = true;
  // How long a thread looks for work before it sleeps. Longer where short work of others comes in between.
  uint32_t patience_us = 100;
  Prompts prompts = Prompts::automatic;
};

class CpuDevice : public Device {
 public:
  static constexpr uint32_t max_threads = 1024;

  // invalid_argument for more than max_threads, unavailable if this CPU lacks the ISA. What DenseProduct::create() says
  // if bf16 or wide8 is asked for.
  static Result<std::unique_ptr<CpuDevice>> create(const CpuOptions& options = {});

  std::string name() const override { return "cpu"; }
  TierId memory_tier() const override { return host_tier; }
  Queue& queue() override { return *queue_; }
  ActFormat act_format(DType weights, Compute compute, bool prompt) const override;
  uint64_t act_row_bytes(ActFormat format, uint32_t cols) const override;

  uint32_t n_threads() const { return n_threads_; }
  std::array<KernelTotals, n_kernels> totals() const { return queue_->totals(); }
  // What makes the products of prompts: "oneDNN 2.6.3 brg:avx512_core_bf16", "wide8 amx"; empty: what decodes.
  std::string library() const { return dense_ != nullptr ? dense_->name() : ""; }
  uint64_t scratch_bytes() const { return dense_ != nullptr ? DenseProduct::scratch_bytes(n_threads_) : 0; }
  std::string describe() const;  // "2 threads, pinned, avx512": for people

 private:
  CpuDevice() = default;
  Status make_dense(const CpuOptions& options);

  std::unique_ptr<DenseProduct> dense_;
  std::unique_ptr<CpuQueue> queue_;
  uint32_t n_threads_ = 0;
  bool pinned_ = false;
  const char* isa_ = "";
};

}  // namespace sluice::cpu
