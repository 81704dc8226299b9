#include "cpu/cpu_device.h"

#include "core/bytes.h"
#include "core/error.h"
#include "cpu/topology.h"

namespace sluice::cpu {

Result<std::unique_ptr<CpuDevice>> CpuDevice::create(const CpuOptions& options) {
  if (options.n_threads > max_threads)
    return error(Code::invalid_argument, "{} compute threads were asked for; at most {} are possible",
                 options.n_threads, max_threads);
  if (!supported(options.isa))
    return error(Code::unavailable, "this CPU, or its operating system, does not run {} kernels",
                 options.isa == Isa::avx512 ? "AVX-512 VNNI" : "AVX2");
  SLUICE_ASSIGN_OR_RETURN(const Topology topology, read_topology());
  const uint32_t n = options.n_threads != 0 ? options.n_threads : topology.default_threads();
  const bool pinned = options.pin && n <= topology.cores.size();
  CpuQueueOptions queue;
  queue.kernels = &kernels(options.isa);
  queue.trace = options.trace;
  queue.team.n_threads = n;
  if (pinned) queue.team.cores.assign(topology.cores.begin(), topology.cores.begin() + n);
  queue.team.spin_ns = n > topology.n_hardware_threads ? 0 : options.patience_us * 1000;
  SLUICE_ASSIGN_OR_RETURN(auto made, CpuQueue::create(std::move(queue)));
  return std::unique_ptr<CpuDevice>(new CpuDevice(std::move(made), n, pinned, kernels(options.isa).isa));
}

ActFormat CpuDevice::act_format(DType weights, Compute compute) const {
  const bool quantized = info(weights).block_elements > 1;
  return quantized && compute == Compute::fast ? ActFormat::q8 : ActFormat::f32;
}

uint64_t CpuDevice::act_row_bytes(ActFormat format, uint32_t cols) const {
  return format == ActFormat::q8 ? q8_row_bytes(cols) : align_up(uint64_t{cols} * sizeof(float), 64);
}

std::string CpuDevice::describe() const {
  return fmt::format("{} threads, {}, {}", n_threads_, pinned_ ? "pinned" : "not pinned", isa_);
}

}  // namespace sluice::cpu
