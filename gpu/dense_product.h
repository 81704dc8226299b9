// DenseProduct: products of bf16 matrices by the vendor's library, where that is installed.
//
// A device either has one for as long as the process lives or has none; what products of prompts then look like is
// decided by that alone, so a plan that is to give equal bits names it (dense_product_name). The library chooses its
// kernel by the shape of a call: equal shapes give equal bits, other shapes need not.
// Threads: any.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <string>

#include "sluice/status.h"

namespace sluice::gpu {

// out[t][r] (+)= sum_c weights[r][c] * x[t][c]: bf16, sums in f32. Pointers and rows are 16-byte aligned.
struct DenseCall {
  const uint16_t* weights;  // rows x cols
  uint32_t rows, cols;
  const uint16_t* x;
  uint64_t x_stride;  // elements from one token to the next
  uint32_t n_tokens;
  float* out;
  uint32_t out_stride;
  bool accumulate;
};

class DenseProduct {
 public:
  virtual ~DenseProduct() = default;
  // Puts the product into the stream. The first call of a shape asks the library for its kernel, later ones
  // allocate nothing.
  virtual Status multiply(cudaStream_t stream, const DenseCall& call) = 0;
  virtual const std::string& name() const = 0;  // with its version: "cuBLASLt 13.1.0"
};

// That of a device, loaded when first asked for; null where there is none.
DenseProduct* dense_product(int device);

// What makes the products of long prompts on this device: the library's name, else "mma". For a plan's numerics.
std::string dense_product_name(int device);

}  // namespace sluice::gpu
