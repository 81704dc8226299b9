// The library for products of long prompts, on the stand-in: a kernel that adds the columns in their order.
#include "gpu/dense_product.h"

#include "gpu/kernels/intrinsics.h"
#include "gpu/launch.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 128;

SLUICE_KERNEL void dense_kernel(DenseCall call) {
  const uint32_t row = block_x() * threads + thread_x(), token = block_y();
  if (row >= call.rows) return;
  float sum = 0;
  for (uint32_t c = 0; c < call.cols; ++c)
    sum = fmaf(bf16_bits_to_float(call.weights[uint64_t{row} * call.cols + c]),
               bf16_bits_to_float(call.x[token * call.x_stride + c]), sum);
  float* out = call.out + uint64_t{token} * call.out_stride + row;
  *out = call.accumulate ? *out + sum : sum;
}

class Reference : public DenseProduct {
 public:
  Status multiply(cudaStream_t stream, const DenseCall& call) override {
    const LaunchShape shape{.grid_x = (call.rows + threads - 1) / threads, .grid_y = call.n_tokens, .block_x = threads};
    return launch(stream, {"dense"}, shape, dense_kernel, call);
  }
  const std::string& name() const override { return name_; }

 private:
  const std::string name_ = "reference";
};

}  // namespace

DenseProduct* dense_product(int /*device*/) {
  static Reference reference;
  return &reference;
}

std::string dense_product_name(int device) { return dense_product(device)->name(); }

}  // namespace sluice::gpu
