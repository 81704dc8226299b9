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
  const KernelTable& table = kernels(options.isa);
  const auto make = [&](const std::vector<TileMaker>& makers) -> Status {
    SLUICE_ASSIGN_OR_RETURN(dense_, DenseProduct::create(table, n_threads_, makers));
    return {};
  };
  switch (options.prompts) {
    case Prompts::int8: return {};
    case Prompts::bf16: return make({bf16_tiles()});
    case Prompts::wide8: return make({wide8_tiles(table)});
    case Prompts::automatic: break;
  }
  if (!may_use_amx_int8()) return {};
  const Status both = make({wide8_tiles(table), bf16_tiles()});
  const bool no_library = both.code() == Code::unavailable || both.code() == Code::unsupported;
  return no_library ? make({wide8_tiles(table)}) : both;
}

// Activations by blocks of 256 are for weights that have such blocks: those of other types would be further from exact
// than with any other engine (tests/engine/real_models_test.cc).
ActFormat CpuDevice::act_format(DType weights, Compute compute, bool prompt) const {
  const uint32_t block = info(weights).block_elements;
  if (block == 1 || compute != Compute::fast) return ActFormat::f32;
  if (!prompt || dense_ == nullptr) return ActFormat::q8;
  if (block == wide_block && dense_->serves(ActFormat::wide8)) return ActFormat::wide8;
  return dense_->serves(ActFormat::bf16) ? ActFormat::bf16 : ActFormat::q8;
}

uint64_t CpuDevice::act_row_bytes(ActFormat format, uint32_t cols) const {
  switch (format) {
    case ActFormat::q8: return q8_row_bytes(cols);
    case ActFormat::bf16:
    case ActFormat::wide8: return group_bytes(format, cols) / act_group;
    case ActFormat::f32: break;
  }
  return align_up(uint64_t{cols} * sizeof(float), 64);
}

std::string CpuDevice::describe() const {
  const std::string text = fmt::format("{} threads, {}, {}", n_threads_, pinned_ ? "pinned" : "not pinned", isa_);
  return dense_ == nullptr ? text : text + ", prompts by " + dense_->name();
}

}  // namespace sluice::cpu
