#include "gpu/cuda_error.h"

#include "core/error.h"

namespace sluice::gpu {
namespace {

Code code_of(cudaError_t e) {
  switch (e) {
    case cudaErrorMemoryAllocation: return Code::over_budget;
    case cudaErrorNotSupported: return Code::unsupported;
    case cudaErrorInvalidValue: return Code::internal;
    default: return Code::unavailable;
  }
}

}  // namespace

Status to_status(cudaError_t code, std::string_view doing) {
  if (code == cudaSuccess) return {};
  (void)cudaGetLastError();
  return error(code_of(code), "{}: {} ({})", doing, cudaGetErrorString(code), cudaGetErrorName(code));
}

Status to_status(CUresult code, std::string_view doing) {
  return to_status(static_cast<cudaError_t>(static_cast<int>(code)), doing);
}

}  // namespace sluice::gpu
