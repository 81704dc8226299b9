#include "engine/machine/timer.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/bytes.h"
#include "core/error.h"
#include "core/trace.h"

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

const std::byte* KernelTimer::next_weights(uint64_t bytes) {
  if (at_ + bytes > weights_->capacity()) at_ = 0;
  const std::byte* part = weights_->base() + at_;
  at_ += align_up(bytes, 64);
  return part;
}

Result<double> KernelTimer::time(uint32_t calls, const std::function<void(Queue&)>& launch) {
  std::array<double, 5> seconds{};
  Queue& queue = device_->queue();
  for (double& run : seconds) {
    SLUICE_RETURN_IF_ERROR(queue.signal().wait());
    const uint64_t start = now_ns();
    for (uint32_t i = 0; i < calls; ++i) launch(queue);
    SLUICE_RETURN_IF_ERROR(queue.signal().wait());
    run = static_cast<double>(now_ns() - start) * 1e-9 / calls;
  }
  std::nth_element(seconds.begin(), seconds.begin() + 2, seconds.end());
  return seconds[2];
}

Result<double> KernelTimer::time_product(DType dtype, Compute compute, uint32_t rows, uint32_t cols, uint32_t tokens) {
  const ActFormat format = device_->act_format(dtype, compute);
  const uint64_t bytes = rows * row_bytes(dtype, cols);
  if (bytes > weights_bytes() || product_scratch(rows, cols, tokens) > scratch_->capacity())
    return error(Code::internal, "a product of {} is larger than what was made for it", format_size(bytes));
  std::byte* x = scratch();
  auto* out = reinterpret_cast<float*>(x + align_up(uint64_t{tokens} * cols * sizeof(float) + 64 * KiB, 64));
  // One token: through much of the memory. Many: a call takes long enough.
  const uint64_t pass = weights_bytes() / bytes;
  const auto calls = static_cast<uint32_t>(tokens == 1 ? std::clamp<uint64_t>(pass, 1, 400) : 1);
  return time(calls, [&](Queue& queue) {
    queue.launch(MatmulCall{next_weights(bytes), dtype, rows, cols, x, format, tokens, out, rows, nullptr, false});
  });
}

}  // namespace sluice::engine
