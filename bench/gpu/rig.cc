#include "bench/gpu/rig.h"

#include <cuda_runtime.h>

#include <cstdio>
#include <random>
#include <vector>

#include "core/error.h"
#include "gpu/cuda_error.h"
#include "gpu/dense_product.h"
#include "gpu/driver.h"
#include "gpu/kernel_context.h"
#include "gpu/kernels/rates.h"

namespace sluice::bench {

using gpu::to_status;

Result<std::unique_ptr<Rig>> Rig::create(int device) {
  std::unique_ptr<Rig> rig(new Rig());
  SLUICE_RETURN_IF_ERROR(rig->start(device));
  return rig;
}

Status Rig::start(int device) {
  gpu::load_kernels_early();
  SLUICE_RETURN_IF_ERROR(to_status(cudaSetDevice(device), "choosing the device"));
  cudaDeviceProp properties{};
  SLUICE_RETURN_IF_ERROR(to_status(cudaGetDeviceProperties(&properties, device), "asking for its properties"));
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  context_ = gpu::kernel_context(device, properties);
  card_ = fmt::format("{}, {} SMs, driver for CUDA {}.{}, runtime {}.{}, {}", properties.name, context_.n_sms,
                      driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10,
                      gpu::dense_product_name(device));
  SLUICE_ASSIGN_OR_RETURN(timer_, gpu::CallTimer::create());
  SLUICE_ASSIGN_OR_RETURN(host_, gpu::PinnedMemory::allocate(device, 1 << 20));
  SLUICE_ASSIGN_OR_RETURN(weights_, gpu::GpuMemory::create(device, weight_bytes));
  SLUICE_ASSIGN_OR_RETURN(x_, gpu::GpuMemory::create(device, act_bytes));
  SLUICE_ASSIGN_OR_RETURN(out_, gpu::GpuMemory::create(device, act_bytes));
  SLUICE_ASSIGN_OR_RETURN(scratch_, gpu::GpuMemory::create(device, scratch_bytes));
  context_.scratch = scratch_->base();
  context_.scratch_bytes = scratch_bytes;
  // Bytes below 0x40: halves between 0 and 2. Floats between 0.5 and 2 of either sign.
  SLUICE_RETURN_IF_ERROR(fill(*weights_, 0x3f3f3f3fu, 0));
  for (gpu::GpuMemory* memory : {x_.get(), out_.get()}) SLUICE_RETURN_IF_ERROR(fill(*memory, 0x80ffffffu, 0x3f000000u));
  return measure_rates();
}

Status Rig::fill(gpu::GpuMemory& memory, uint32_t mask, uint32_t add) {
  std::mt19937 random(1);
  std::vector<uint32_t> words(1 << 22);
  for (uint32_t& word : words) word = (static_cast<uint32_t>(random()) & mask) | add;
  const uint64_t bytes = words.size() * sizeof(uint32_t);
  for (uint64_t at = 0; at < memory.capacity(); at += bytes)
    SLUICE_RETURN_IF_ERROR(
        to_status(cudaMemcpyAsync(memory.base() + at, words.data(), bytes, cudaMemcpyHostToDevice, timer_->stream()),
                  "filling memory"));
  return to_status(cudaStreamSynchronize(timer_->stream()), "filling memory");
}

Status Rig::measure_rates() {
  auto* sum = reinterpret_cast<uint32_t*>(out_->base());
  SLUICE_ASSIGN_OR_RETURN(const double read_us, timer_->us(2, repeats, [&](uint32_t i) {
    return gpu::read_memory(timer_->stream(), weights() + i * (weight_bytes / 2), weight_bytes / 2, context_.n_sms,
                            sum);
  }));
  rates_.memory_gb_s = weight_bytes / 2 / read_us * 1e-3;
  constexpr uint32_t n = 8192;
  SLUICE_ASSIGN_OR_RETURN(const double product_us, timer_->us(4, 3, [&](uint32_t) -> Status {
    if (context_.dense != nullptr)
      return context_.dense->multiply(
          timer_->stream(), {reinterpret_cast<const uint16_t*>(weights()), n, n, reinterpret_cast<const uint16_t*>(x()),
                             n, n, out(), n, false});
    return gpu::matmul_tile(timer_->stream(),
                            {weights(), DType::q8_0, n, n, x(), ActFormat::q8, n, out(), n, nullptr, false});
  }));
  rates_.bf16_tflops = 2.0 * n * n * n / product_us * 1e-6;
  std::printf("%s\nmemory %.0f GB/s, bf16 %.0f TFLOP/s\n", card_.c_str(), rates_.memory_gb_s, rates_.bf16_tflops);
  return {};
}

void Rig::report(const std::string& kernel, const std::string& what, double us, uint64_t bytes, uint64_t flops) {
  const double gb_s = static_cast<double>(bytes) / us * 1e-3, tflops = static_cast<double>(flops) / us * 1e-6;
  std::printf("%-12s %-34s %10.2f us %7.0f GB/s %3.0f %%", kernel.c_str(), what.c_str(), us, gb_s,
              100 * gb_s / rates_.memory_gb_s);
  if (flops > 0) std::printf(" %7.1f TFLOP/s %3.0f %%", tflops, 100 * tflops / rates_.bf16_tflops);
  std::printf("\n");
  std::fflush(stdout);
  lines_.push_back({{"kernel", kernel}, {"what", what}, {"us", us}, {"bytes", bytes}, {"flops", flops}});
}

nlohmann::json Rig::results() const {
  return {{"card", card_},
          {"memory_gb_s", rates_.memory_gb_s},
          {"bf16_tflops", rates_.bf16_tflops},
          {"repeats", repeats},
          {"lines", lines_}};
}

}  // namespace sluice::bench
