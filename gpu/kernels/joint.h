// Calls that one kernel does together (kernels.h): which they are, each where its kernel is.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "core/kernel.h"
#include "gpu/kernels/kernels.h"
#include "gpu/launch.h"
#include "sluice/status.h"

namespace sluice::gpu {

inline bool multiple_of_16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Whether the second call can be run with the first, which is held back.
bool joins(const MatmulCall& product, const MatmulCall& next);
bool joins(const RmsNormCall& norm, const QuantizeCall& next);
bool joins(const GatedActCall& act, const QuantizeCall& next);
bool joins(const AttentionCall& attention, const QuantizeCall& next);
bool joins(const RopeCall& queries, const RopeCall& keys);
bool joins(const RopeCall& keys, const KvAppendCall& next);

Status run_joint(cudaStream_t stream, const RmsNormCall& norm, const QuantizeCall& quantize);
Status run_joint(cudaStream_t stream, const GatedActCall& act, const QuantizeCall& quantize);
Status run_joint(cudaStream_t stream, const AttentionCall& attention, const QuantizeCall& quantize,
                 const KernelContext& context);
Status run_joint(cudaStream_t stream, const RopeCall& queries, const RopeCall& keys, const KvAppendCall& append);

// Whether `next` makes q8 activations of the rows at `made`, in a way that vectors serve.
inline bool quantizes(const QuantizeCall& next, const float* made, uint32_t n_rows, uint32_t cols) {
  return next.x == made && next.format == ActFormat::q8 && next.n_rows == n_rows && next.cols == cols && cols != 0 &&
         cols % 32 == 0 && multiple_of_16(made);
}

// What the calls come to. calls: a range of calls of one type, or of KernelCall.
template <class Calls>
LaunchInfo joint_info(const char* name, const Calls& calls) {
  LaunchInfo sum{name, 0, 0};
  for (const auto& call : calls) {
    const Cost c = cost(KernelCall(call));
    sum.bytes += c.bytes;
    sum.flops += c.flops;
  }
  return sum;
}

}  // namespace sluice::gpu
