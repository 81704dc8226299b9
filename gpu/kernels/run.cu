// The kernel that serves a call.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/q8_rows.h"

namespace sluice::gpu {

Status run(cudaStream_t stream, const KernelCall& call, const KernelContext& context) {
  return std::visit([&](const auto& one) { return run(stream, one, context); }, call);
}

Status run(cudaStream_t stream, const MatmulCall& call, const KernelContext& context) {
  if (call.rows == 0 || call.n_tokens == 0) return {};
  if (call.x_format == ActFormat::f32) return matvec_f32(stream, call);
  if (call.n_tokens <= decode_tokens && !call.prompt) return matvec_q8(stream, call, context);
  if (matmul_dense_serves(call, context)) return matmul_dense(stream, call, context);
  return matmul_tile(stream, call);
}

ActFormat act_format(DType weights, Compute compute) {
  const bool quantized = info(weights).block_elements > 1;
  return quantized && compute == Compute::fast ? ActFormat::q8 : ActFormat::f32;
}

uint64_t act_row_bytes(ActFormat format, uint32_t cols) {
  return format == ActFormat::f32 ? uint64_t{cols} * sizeof(float) : q8_layout(cols).row_bytes;
}

}  // namespace sluice::gpu
