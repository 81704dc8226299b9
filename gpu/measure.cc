#include "gpu/measure.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <vector>

#include "core/bytes.h"
#include "core/error.h"
#include "core/trace.h"
#include "gpu/call_timer.h"
#include "gpu/cuda_error.h"
#include "gpu/dense_product.h"
#include "gpu/driver.h"
#include "gpu/gpu_memory.h"
#include "gpu/kernel_context.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/rates.h"

namespace sluice::gpu {
namespace {

constexpr DType types[] = {DType::f32,  DType::f16,  DType::bf16, DType::q4_0, DType::q4_1,
                           DType::q5_0, DType::q5_1, DType::q8_0, DType::q4_k, DType::q6_k};
constexpr uint64_t cold_bytes = uint64_t{128} << 20;  // of weights that a replay reads, beyond the L2
constexpr uint32_t small_copy_bytes = 64;

class Measurement {
 public:
  Measurement(int device, const MeasureOptions& options) : device_(device), o_(options) {}

  Result<GpuRates> run() {
    SLUICE_RETURN_IF_ERROR(start());
    SLUICE_RETURN_IF_ERROR(memory());
    for (const DType type : types) {
      SLUICE_RETURN_IF_ERROR(products(type, Compute::fast));
      SLUICE_RETURN_IF_ERROR(products(type, Compute::f32));
    }
    SLUICE_RETURN_IF_ERROR(more_tokens());
    SLUICE_ASSIGN_OR_RETURN(rates_.device.call_us, timer_->launched_us(256, o_.repeats, [&](uint32_t) {
      return do_nothing(timer_->stream());
    }));
    SLUICE_ASSIGN_OR_RETURN(rates_.device.recorded_us, timer_->us(256, o_.repeats, [&](uint32_t) {
      return do_nothing(timer_->stream());
    }));
    SLUICE_RETURN_IF_ERROR(link(rates_.to_device, weights_->base(), host_->base(), cudaMemcpyHostToDevice));
    SLUICE_RETURN_IF_ERROR(link(rates_.to_host, host_->base(), weights_->base(), cudaMemcpyDeviceToHost));
    return rates_;
  }

 private:
  Status start() {
    load_kernels_early();
    SLUICE_RETURN_IF_ERROR(to_status(cudaSetDevice(device_), "choosing the device"));
    cudaDeviceProp properties{};
    SLUICE_RETURN_IF_ERROR(to_status(cudaGetDeviceProperties(&properties, device_), "asking for its properties"));
    context_ = kernel_context(device_, properties);
    rates_.device.id = rates_.memory.id = "gpu " + std::to_string(device_);
    rates_.device.detail = fmt::format("{}, {} SMs, {}", properties.name, context_.n_sms, dense_product_name(device_));
    rates_.memory.capacity = properties.totalGlobalMem;
    rates_.to_device.from = rates_.to_host.to = "host";
    rates_.to_device.to = rates_.to_host.from = rates_.memory.id;
    SLUICE_ASSIGN_OR_RETURN(timer_, CallTimer::create());
    SLUICE_ASSIGN_OR_RETURN(weights_, GpuMemory::create(device_, o_.memory_bytes));
    const uint32_t most_tokens = std::max({o_.tokens, o_.more_tokens, o_.tokens_f32});
    const uint64_t x_bytes = act_row_bytes(ActFormat::f32, o_.cols) * most_tokens;
    SLUICE_ASSIGN_OR_RETURN(x_, GpuMemory::create(device_, x_bytes));
    SLUICE_ASSIGN_OR_RETURN(
        acts_, GpuMemory::create(device_, std::max(x_bytes, act_row_bytes(ActFormat::q8, o_.cols) * most_tokens)));
    SLUICE_ASSIGN_OR_RETURN(out_, GpuMemory::create(device_, uint64_t{o_.rows} * most_tokens * sizeof(float)));
    SLUICE_ASSIGN_OR_RETURN(scratch_, GpuMemory::create(device_, dense_scratch_bytes(o_.rows, o_.cols)));
    SLUICE_ASSIGN_OR_RETURN(host_, PinnedMemory::allocate(device_, std::max(o_.copy_bytes, uint64_t{MiB})));
    context_.scratch = scratch_->base();
    context_.scratch_bytes = scratch_->capacity();
    return fill();
  }

  // Bytes below 0x40, so that halves and floats lie between 0 and 2, all over the weights and the activations.
  Status fill() {
    uint32_t state = 1;
    for (uint64_t i = 0; i < host_->capacity(); ++i) {
      state = state * 1664525u + 1013904223u;
      host_->base()[i] = static_cast<std::byte>(state >> 24 & 0x3f);
    }
    for (GpuMemory* memory : {weights_.get(), x_.get()})
      for (uint64_t at = 0; at < memory->capacity(); at += host_->capacity())
        SLUICE_RETURN_IF_ERROR(to_status(
            cudaMemcpyAsync(memory->base() + at, host_->base(), std::min(host_->capacity(), memory->capacity() - at),
                            cudaMemcpyHostToDevice, timer_->stream()),
            "filling memory"));
    return to_status(cudaStreamSynchronize(timer_->stream()), "filling memory");
  }

  Status memory() {
    auto* sum = reinterpret_cast<uint32_t*>(out_->base());
    SLUICE_ASSIGN_OR_RETURN(const double read_us, timer_->us(1, o_.repeats, [&](uint32_t) {
      return read_memory(timer_->stream(), weights_->base(), o_.memory_bytes, context_.n_sms, sum);
    }));
    SLUICE_ASSIGN_OR_RETURN(const double write_us, timer_->launched_us(1, o_.repeats, [&](uint32_t) {
      return to_status(cudaMemsetAsync(weights_->base(), 0x2a, o_.memory_bytes, timer_->stream()), "writing memory");
    }));
    rates_.memory.read_gb_s = rates_.device.memory_gb_s = static_cast<double>(o_.memory_bytes) / read_us * 1e-3;
    rates_.memory.write_gb_s = static_cast<double>(o_.memory_bytes) / write_us * 1e-3;
    return fill();
  }

  Result<double> product_us(DType type, ActFormat format, uint32_t tokens) {
    const uint64_t bytes = o_.rows * row_bytes(type, o_.cols);
    const uint64_t matrices = std::max<uint64_t>(1, o_.memory_bytes / bytes);
    const auto n = static_cast<uint32_t>(std::clamp<uint64_t>(cold_bytes / bytes, 1, matrices));
    const auto* x = reinterpret_cast<const float*>(x_->base());
    auto* out = reinterpret_cast<float*>(out_->base());
    SLUICE_RETURN_IF_ERROR(
        gpu::run(timer_->stream(), QuantizeCall{x, format, tokens, o_.cols, acts_->base()}, context_));
    return timer_->us(tokens > 1 ? 1 : n, o_.repeats, [&](uint32_t i) {
      return gpu::run(timer_->stream(),
                      MatmulCall{weights_->base() + i * bytes, type, o_.rows, o_.cols, acts_->base(), format, tokens,
                                 out, o_.rows, nullptr, false},
                      context_);
    });
  }

  Status products(DType type, Compute compute) {
    const ActFormat format = act_format(type, compute);
    const bool fast = compute == Compute::fast;
    const uint32_t tokens = format == ActFormat::q8 ? o_.tokens : o_.tokens_f32;
    const double bytes = static_cast<double>(o_.rows * row_bytes(type, o_.cols));
    const double flops = 2.0 * o_.rows * o_.cols * tokens;
    SLUICE_ASSIGN_OR_RETURN(const double one_us, product_us(type, format, 1));
    SLUICE_ASSIGN_OR_RETURN(const double many_us, product_us(type, format, tokens));
    DeviceRates& d = rates_.device;
    (fast ? d.matvec_gb_s : d.matvec_f32_gb_s)[type] = bytes / one_us * 1e-3;
    (fast ? d.matmul_gflops : d.matmul_f32_gflops)[type] = flops / many_us * 1e-3;
    return {};
  }

  // What each token beyond o_.tokens adds; of one type, since all are the same tiles by then.
  Status more_tokens() {
    constexpr DType type = DType::q4_k;
    SLUICE_ASSIGN_OR_RETURN(const double many_us, product_us(type, ActFormat::q8, o_.tokens));
    SLUICE_ASSIGN_OR_RETURN(const double more_us, product_us(type, ActFormat::q8, o_.more_tokens));
    if (more_us <= many_us) return {};
    rates_.device.many_tokens = o_.tokens;
    rates_.device.more_gflops = 2.0 * o_.rows * o_.cols * (o_.more_tokens - o_.tokens) / (more_us - many_us) * 1e-3;
    return {};
  }

  Status link(LinkRates& rates, std::byte* to, const std::byte* from, cudaMemcpyKind kind) {
    const auto copy = [&](uint64_t bytes) {
      return [this, to, from, kind, bytes](uint32_t) {
        return to_status(cudaMemcpyAsync(to, from, bytes, kind, timer_->stream()), "copying");
      };
    };
    SLUICE_ASSIGN_OR_RETURN(const double us, timer_->launched_us(4, o_.repeats, copy(o_.copy_bytes)));
    SLUICE_ASSIGN_OR_RETURN(rates.latency_us, timer_->launched_us(1, o_.repeats, copy(small_copy_bytes)));
    rates.gb_s = static_cast<double>(o_.copy_bytes) / us * 1e-3;
    return {};
  }

  const int device_;
  const MeasureOptions o_;
  GpuRates rates_;
  std::unique_ptr<GpuMemory> weights_, x_, acts_, out_, scratch_;
  std::unique_ptr<PinnedMemory> host_;
  std::unique_ptr<CallTimer> timer_;  // waits for its work, and so goes before the memory
  KernelContext context_;
};

Status check(const MeasureOptions& o) {
  const uint64_t matrix = o.rows * row_bytes(DType::f32, o.cols);
  if (o.rows > 0 && o.cols > 0 && o.cols % 256 == 0 && o.tokens > 0 && o.tokens_f32 > 0 && o.more_tokens > o.tokens &&
      o.memory_bytes >= matrix && o.copy_bytes >= small_copy_bytes && o.copy_bytes <= o.memory_bytes && o.repeats > 0)
    return {};
  return error(Code::invalid_argument, "measuring a GPU: {} x {} values, {} bytes of memory, copies of {} do not fit",
               o.rows, o.cols, o.memory_bytes, o.copy_bytes);
}

// Some copies at a time.
Result<double> copy_for(int device, const Memory& host, double seconds) {
  constexpr uint64_t most_at_once = 8 * MiB;
  const uint64_t bytes = std::min(most_at_once, host.capacity());
  SLUICE_ASSIGN_OR_RETURN(const auto timer, CallTimer::create());
  SLUICE_ASSIGN_OR_RETURN(const auto memory, GpuMemory::create(device, bytes));
  constexpr uint32_t copies = 8;
  const uint64_t start = now_ns();
  uint64_t at = 0, done = 0, now = start;
  while (now - start < static_cast<uint64_t>(seconds * 1e9)) {
    for (uint32_t i = 0; i < copies; ++i, at += bytes, done += bytes) {
      if (at + bytes > host.capacity()) at = 0;
      SLUICE_RETURN_IF_ERROR(
          to_status(cudaMemcpyAsync(memory->base(), host.base() + at, bytes, cudaMemcpyHostToDevice, timer->stream()),
                    "copying"));
    }
    SLUICE_RETURN_IF_ERROR(to_status(cudaStreamSynchronize(timer->stream()), "copying"));
    now = now_ns();
  }
  return static_cast<double>(done) / static_cast<double>(now - start);
}

}  // namespace

Result<double> link_rate(int device, Memory& host, double seconds) {
  if (host.capacity() == 0 || !(seconds > 0))
    return error(Code::invalid_argument, "a link is not measured with nothing or for no time");
  SLUICE_RETURN_IF_ERROR(to_status(cudaSetDevice(device), "choosing the device"));
  SLUICE_ASSIGN_OR_RETURN(const auto pinned, PinnedMemory::pin(device, host));
  return copy_for(device, *pinned, seconds);
}

Result<GpuRates> measure(int device, const MeasureOptions& options) {
  SLUICE_RETURN_IF_ERROR(check(options));
  Measurement measurement(device, options);
  auto rates = measurement.run();
  if (!rates.ok()) return rates.status().with_context("measuring gpu " + std::to_string(device));
  return rates;
}

}  // namespace sluice::gpu
