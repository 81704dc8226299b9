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
  std::unique_ptr<CpuDevice> device(new CpuDevice);
  device->n_threads_ = n;
  device->pinned_ = pinned;
  device->isa_ = kernels(options.isa).isa;
  SLUICE_RETURN_IF_ERROR(device->make_dense(options));
  CpuQueueOptions queue;
  queue.kernels = &kernels(options.isa);
  queue.dense = device->dense_.get();
  queue.trace = options.trace;
  queue.team.n_threads = n;
  if (pinned) queue.team.cores.assign(topology.cores.begin(), topology.cores.begin() + n);
  queue.team.spin_ns = n > topology.n_hardware_threads ? 0 : options.patience_us * 1000;
  SLUICE_ASSIGN_OR_RETURN(device->queue_, CpuQueue::create(std::move(queue)));
  return device;
}

Status CpuDevice::make_dense(const CpuOptions& options) {
  const bool asked = options.prompts == Prompts::bf16;
  if (!asked && (options.prompts == Prompts::int8 || !has_amx_bf16())) return {};
  auto made = DenseProduct::create(kernels(options.isa), n_threads_);
  if (!made.ok()) return asked ? made.status() : Status();
  if (asked || (*made)->has_matrix_units()) dense_ = std::move(*made);
  return {};
}

ActFormat CpuDevice::act_format(DType weights, Compute compute, bool prompt) const {
  const bool quantized = info(weights).block_elements > 1;
  if (!quantized || compute != Compute::fast) return ActFormat::f32;
  return prompt && dense_ != nullptr ? ActFormat::bf16 : ActFormat::q8;
}

uint64_t CpuDevice::act_row_bytes(ActFormat format, uint32_t cols) const {
  switch (format) {
    case ActFormat::q8: return q8_row_bytes(cols);
    case ActFormat::bf16: return uint64_t{cols} * 2;
    case ActFormat::f32: break;
  }
  return align_up(uint64_t{cols} * sizeof(float), 64);
}

std::string CpuDevice::describe() const {
  const std::string text = fmt::format("{} threads, {}, {}", n_threads_, pinned_ ? "pinned" : "not pinned", isa_);
  return dense_ == nullptr ? text : text + ", prompts by " + dense_->name();
}

}  // namespace sluice::cpu
