// The few functions of cuBLASLt that products need, by hand: its headers are no part of every toolkit and the library
// of few machines, so that it is looked for when first needed and never linked.
//
// Types and values are those of cublasLt.h, the same in versions 12 and 13.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "sluice/status.h"

namespace sluice::gpu {

struct CublasLt {
  using Handle = struct LtHandle*;
  using Operation = struct LtOperation*;    // cublasLtMatmulDesc_t
  using Layout = struct LtLayout*;          // cublasLtMatrixLayout_t
  using Preference = struct LtPreference*;  // cublasLtMatmulPreference_t

  static constexpr int compute_f32 = 68, type_f32 = 0, type_bf16 = 14;
  static constexpr int transpose_a = 3, transpose = 1;                  // an attribute, its value
  static constexpr int max_workspace_bytes = 1, reduction_schemes = 3;  // preferences

  struct Algorithm {
    uint64_t data[8];
  };
  struct Heuristic {
    Algorithm algorithm;
    size_t workspace_bytes;
    int state;
    float waves;
    int reserved[4];
  };

  int (*create)(Handle*);
  int (*destroy)(Handle);
  size_t (*version)();
  int (*operation_create)(Operation*, int compute, int scale_type);
  int (*operation_destroy)(Operation);
  int (*operation_set)(Operation, int attribute, const void* value, size_t bytes);
  int (*layout_create)(Layout*, int type, uint64_t rows, uint64_t cols, int64_t leading);
  int (*layout_destroy)(Layout);
  int (*preference_create)(Preference*);
  int (*preference_destroy)(Preference);
  int (*preference_set)(Preference, int attribute, const void* value, size_t bytes);
  int (*choose)(Handle, Operation, Layout a, Layout b, Layout c, Layout d, Preference, int asked, Heuristic* results,
                int* found);
  int (*matmul)(Handle, Operation, const void* alpha, const void* a, Layout, const void* b, Layout, const void* beta,
                const void* c, Layout, void* d, Layout, const Algorithm*, void* workspace, size_t workspace_bytes,
                cudaStream_t);

  // unavailable where the library or one of its functions is not found.
  static Result<CublasLt> load();
};

}  // namespace sluice::gpu
