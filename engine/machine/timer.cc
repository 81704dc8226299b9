#include "engine/machine/timer.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/bytes.h"
#include "core/error.h"
#include "core/trace.h"
#include "offload/plan/cost_model.h"

namespace sluice::engine {

uint64_t product_scratch(uint32_t rows, uint32_t cols, uint32_t tokens) {
  return align_up(uint64_t{tokens} * cols * sizeof(float) + 64 * KiB, 64) + uint64_t{tokens} * rows * sizeof(float);
}

Result<KernelTimer> KernelTimer::create(cpu::CpuDevice& device, uint64_t weights, uint64_t scratch) {
  KernelTimer timer(device);
  SLUICE_ASSIGN_OR_RETURN(timer.weights_, cpu::HostMemory::create(weights));
  SLUICE_ASSIGN_OR_RETURN(timer.scratch_, cpu::HostMemory::create(scratch));
  std::memset(timer.weights_->base(), 0x11, timer.weights_->capacity());
  std::memset(timer.scratch_->base(), 0x11, timer.scratch_->capacity());
  return timer;
}

std::byte* KernelTimer::next_page(uint64_t bytes) {
  if (at_ + bytes > weights_->capacity()) at_ = 0;
  std::byte* part = weights_->base() + at_;
  at_ += align_up(bytes, 64);
  return part;
}

Result<double> KernelTimer::time_run(uint32_t n, const std::function<void(Queue&)>& launch) {
  Queue& queue = device_->queue();
  SLUICE_RETURN_IF_ERROR(queue.signal().wait());
  const uint64_t start = now_ns();
  for (uint32_t i = 0; i < n; ++i) launch(queue);
  SLUICE_RETURN_IF_ERROR(queue.signal().wait());
  return static_cast<double>(now_ns() - start) * 1e-9;
}

Result<double> KernelTimer::time(const std::function<void(Queue&)>& launch) {
  constexpr double run_s = 0.004;
  constexpr uint32_t few = 4, most = 2000;
  SLUICE_ASSIGN_OR_RETURN(const double first, time_run(few, launch));
  const auto n = static_cast<uint32_t>(std::clamp(run_s * few / first, 1.0, double{most}));
  std::array<double, 5> seconds{};
  for (double& run : seconds) {
    SLUICE_ASSIGN_OR_RETURN(run, time_run(n, launch));
  }
  std::nth_element(seconds.begin(), seconds.begin() + 1, seconds.end());
  return seconds[1] / n;
}

Result<std::function<void(Queue&)>> KernelTimer::product(DType dtype, Compute compute, uint32_t rows, uint32_t cols,
                                                         uint32_t tokens) {
  const ActFormat format = device_->act_format(dtype, compute, tokens > plan::decode_tokens);
  const uint64_t bytes = rows * row_bytes(dtype, cols);
  if (bytes > weights_bytes() || product_scratch(rows, cols, tokens) > scratch_->capacity())
    return error(Code::internal, "a product of {} is larger than what was made for it", format_size(bytes));
  std::byte* x = scratch();
  auto* out = reinterpret_cast<float*>(x + align_up(uint64_t{tokens} * cols * sizeof(float) + 64 * KiB, 64));
  return std::function<void(Queue&)>([=, this](Queue& queue) {
    queue.launch(MatmulCall{next_weights(bytes), dtype, rows, cols, x, format, tokens, out, rows, nullptr, false});
  });
}

Result<double> KernelTimer::time_product(DType dtype, Compute compute, uint32_t rows, uint32_t cols, uint32_t tokens) {
  SLUICE_ASSIGN_OR_RETURN(const auto launch, product(dtype, compute, rows, cols, tokens));
  return time(launch);
}

}  // namespace sluice::engine
