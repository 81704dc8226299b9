// Host side of the kernels: the choice of a template's format by DType, and what launches are counted with.
#pragma once

#include <string>

#include "core/kernel.h"
#include "gpu/kernels/formats.h"
#include "gpu/launch.h"
#include "sluice/status.h"

namespace sluice::gpu {

inline Status no_kernel(const char* name, DType type) {
  return Status(Code::unsupported, std::string("gpu: no ") + name + " kernel for " + std::string(info(type).name));
}

// act(format) with the format of a quantized type.
template <class Act>
Status with_quantized(const char* name, DType type, Act act) {
  switch (type) {
    case DType::q4_0: return act(Q4_0{});
    case DType::q4_1: return act(Q4_1{});
    case DType::q5_0: return act(Q5_0{});
    case DType::q5_1: return act(Q5_1{});
    case DType::q8_0: return act(Q8_0{});
    case DType::q4_k: return act(Q4_K{});
    case DType::q6_k: return act(Q6_K{});
    case DType::f32:
    case DType::f16:
    case DType::bf16:
    case DType::i32: break;
  }
  return no_kernel(name, type);
}

// act(format) with the format of any type of weights.
template <class Act>
Status with_format(const char* name, DType type, Act act) {
  switch (type) {
    case DType::f32: return act(F32{});
    case DType::f16: return act(F16{});
    case DType::bf16: return act(BF16{});
    default: return with_quantized(name, type, act);
  }
}

inline LaunchInfo launch_info(const char* name, const KernelCall& call) {
  const Cost c = cost(call);
  return {name, c.bytes, c.flops};
}

inline constexpr uint32_t most_blocks_y = 65535;  // of a grid, as CUDA has it

inline uint32_t blocks_for(uint64_t items, uint32_t per_block) {
  return static_cast<uint32_t>((items + per_block - 1) / per_block);
}

}  // namespace sluice::gpu
