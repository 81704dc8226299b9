// What the benchmarks of the GPU's kernels share: memory of the card filled with ordinary numbers, a timer, and the
// lines that are printed and kept.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "core/kernel.h"
#include "gpu/call_timer.h"
#include "gpu/gpu_memory.h"
#include "gpu/kernels/kernels.h"

namespace sluice::bench {

struct CardRates {
  double memory_gb_s = 0;
  double bf16_tflops = 0;  // by the library or, without one, by our own kernel
};

class Rig {
 public:
  static constexpr uint64_t weight_bytes = uint64_t{2} << 30, act_bytes = uint64_t{1} << 30;
  static constexpr uint64_t scratch_bytes = uint64_t{512} << 20;
  static constexpr uint64_t cold_bytes = uint64_t{256} << 20;  // well beyond the L2

  static Result<std::unique_ptr<Rig>> create(int device);

  gpu::CallTimer& timer() { return *timer_; }
  std::byte* weights() const { return weights_->base(); }
  std::byte* x() const { return x_->base(); }
  float* out() const { return reinterpret_cast<float*>(out_->base()); }
  std::byte* host() const { return host_->base(); }  // pinned, a MiB, for tables
  gpu::KernelContext& context() { return context_; }
  const CardRates& rates() const { return rates_; }
  uint32_t repeats = 9;

  // Times `make(i)` for i < n, prints a line and keeps it. bytes, flops: of one call; 0 flops are not printed.
  template <class Make>
  Status time(const std::string& kernel, const std::string& what, uint32_t n, uint64_t bytes, uint64_t flops,
              const Make& make) {
    SLUICE_ASSIGN_OR_RETURN(const double us, timer_->us(n, repeats, [&](uint32_t i) {
      return gpu::run(timer_->stream(), KernelCall(make(i)), context_);
    }));
    report(kernel, what, us, bytes, flops);
    return {};
  }
  // The same, launched one by one: for calls that a graph runs otherwise.
  template <class Make>
  Status time_launched(const std::string& kernel, const std::string& what, uint32_t n, uint64_t bytes, uint64_t flops,
                       const Make& make) {
    SLUICE_ASSIGN_OR_RETURN(const double us, timer_->launched_us(n, repeats, [&](uint32_t i) {
      return gpu::run(timer_->stream(), KernelCall(make(i)), context_);
    }));
    report(kernel, what, us, bytes, flops);
    return {};
  }
  void report(const std::string& kernel, const std::string& what, double us, uint64_t bytes, uint64_t flops);

  nlohmann::json results() const;

 private:
  Rig() = default;
  Status start(int device);
  Status fill(gpu::GpuMemory& memory, uint32_t mask, uint32_t add);
  Status measure_rates();

  std::string card_;
  std::unique_ptr<gpu::GpuMemory> weights_, x_, out_, scratch_;
  std::unique_ptr<gpu::PinnedMemory> host_;
  std::unique_ptr<gpu::CallTimer> timer_;  // waits for its work, and so goes before the memory
  gpu::KernelContext context_;
  CardRates rates_;
  nlohmann::json lines_ = nlohmann::json::array();
};

Status bench_products(Rig& rig, const std::string& only);
Status bench_attention(Rig& rig);
Status bench_elementwise(Rig& rig);
Status bench_launches(Rig& rig);
// A layer of an 8B model with one token, its calls one by one and together, and what each step takes.
Status bench_layer(Rig& rig);

}  // namespace sluice::bench
