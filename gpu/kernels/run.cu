// The kernel that serves a call, or some.
#include <algorithm>
#include <array>

#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/joint.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/q8_rows.h"

namespace sluice::gpu {
namespace {

// Whether two calls are of these types and join.
template <class A, class B>
bool join_as(const KernelCall& first, const KernelCall& second) {
  const A* a = std::get_if<A>(&first);
  const B* b = std::get_if<B>(&second);
  return a != nullptr && b != nullptr && joins(*a, *b);
}

Status run_products(cudaStream_t stream, std::span<const KernelCall> calls, const KernelContext& context) {
  std::array<MatmulCall, most_joint> products;
  const auto end = std::transform(calls.begin(), calls.end(), products.begin(),
                                  [](const KernelCall& call) { return std::get<MatmulCall>(call); });
  return matvec_q8(stream, {products.begin(), end}, context);
}

Status run_one_by_one(cudaStream_t stream, std::span<const KernelCall> calls, const KernelContext& context) {
  for (const KernelCall& call : calls) SLUICE_RETURN_IF_ERROR(run(stream, call, context));
  return {};
}

}  // namespace

bool joins(std::span<const KernelCall> held, const KernelCall& next) {
  if (held.empty() || held.size() >= most_joint) return false;
  const KernelCall& last = held.back();
  if (std::holds_alternative<MatmulCall>(next))
    return std::all_of(held.begin(), held.end(),
                       [&](const KernelCall& call) { return join_as<MatmulCall, MatmulCall>(call, next); });
  if (held.size() == 1)
    return join_as<RmsNormCall, QuantizeCall>(last, next) || join_as<GatedActCall, QuantizeCall>(last, next) ||
           join_as<AttentionCall, QuantizeCall>(last, next) || join_as<RopeCall, RopeCall>(last, next);
  return held.size() == 2 && join_as<RopeCall, KvAppendCall>(last, next);
}

Status run(cudaStream_t stream, std::span<const KernelCall> calls, const KernelContext& context) {
  if (calls.size() < 2) return run_one_by_one(stream, calls, context);
  const KernelCall &first = calls[0], &second = calls[1];
  if (std::holds_alternative<MatmulCall>(first)) return run_products(stream, calls, context);
  if (const auto* norm = std::get_if<RmsNormCall>(&first))
    return run_joint(stream, *norm, std::get<QuantizeCall>(second));
  if (const auto* act = std::get_if<GatedActCall>(&first))
    return run_joint(stream, *act, std::get<QuantizeCall>(second));
  if (const auto* attention = std::get_if<AttentionCall>(&first))
    return run_joint(stream, *attention, std::get<QuantizeCall>(second), context);
  if (calls.size() == 3)
    return run_joint(stream, std::get<RopeCall>(first), std::get<RopeCall>(second), std::get<KvAppendCall>(calls[2]));
  return run_one_by_one(stream, calls, context);
}

Status run(cudaStream_t stream, const KernelCall& call, const KernelContext& context) {
  return std::visit([&](const auto& one) { return run(stream, one, context); }, call);
}

Status run(cudaStream_t stream, const MatmulCall& call, const KernelContext& context) {
  if (call.rows == 0 || call.n_tokens == 0) return {};
  if (call.x_format == ActFormat::f32) return matvec_f32(stream, call);
  if (call.n_tokens <= decode_tokens && !call.prompt) return matvec_q8(stream, {&call, 1}, context);
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
