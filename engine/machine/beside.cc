#include "engine/machine/beside.h"

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>

#include "core/error.h"
#include "core/trace.h"
#include "engine/machine/timer.h"

namespace sluice::engine {
namespace {

constexpr DType type = DType::q4_k;
constexpr uint32_t rows = 4096, cols = 4096;

// Products, one behind the other, for `seconds` or until `stop`: weight bytes per second.
Result<double> product_rate(KernelTimer& timer, double seconds, const std::atomic<bool>* stop) {
  const uint64_t bytes = rows * row_bytes(type, cols);
  const auto goes_on = [&](uint64_t since) {
    return stop != nullptr ? !stop->load(std::memory_order_relaxed)
                           : static_cast<double>(now_ns() - since) * 1e-9 < seconds;
  };
  constexpr uint32_t at_once = 16;
  SLUICE_ASSIGN_OR_RETURN(const auto launch, timer.product(type, Compute::fast, rows, cols, 1));
  double busy = 0;
  uint64_t n = 0;
  for (const uint64_t start = now_ns(); goes_on(start) || n == 0; n += at_once) {
    SLUICE_ASSIGN_OR_RETURN(const double some, timer.time_run(at_once, launch));
    busy += some;
  }
  return static_cast<double>(n * bytes) / busy;
}

}  // namespace

Result<Beside> measure_beside(cpu::CpuDevice& device, uint64_t weights, double seconds,
                              const std::function<Result<double>()>& other) {
  SLUICE_ASSIGN_OR_RETURN(KernelTimer timer, KernelTimer::create(device, weights, product_scratch(rows, cols, 1)));
  SLUICE_ASSIGN_OR_RETURN(const double alone, product_rate(timer, seconds / 2, nullptr));
  std::atomic<bool> stop{false};
  Result<double> rate = 0.0;
  std::thread thread;
  try {
    thread = std::thread([&] {
      rate = other();
      stop.store(true, std::memory_order_relaxed);
    });
  } catch (const std::system_error& e) {
    return error(Code::unavailable, "cannot start a thread to measure with: {}", e.what());
  }
  const Result<double> beside = product_rate(timer, seconds, &stop);
  thread.join();
  SLUICE_RETURN_IF_ERROR(rate.status());
  SLUICE_RETURN_IF_ERROR(beside.status());
  return Beside{*rate, std::clamp(*beside / alone, 0.01, 1.0)};
}

}  // namespace sluice::engine
