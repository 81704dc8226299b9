// Activations as products take them, read back as numbers.
#pragma once

#include "core/dtype.h"
#include "gpu/kernels/q8_rows.h"
#include "tests/gpu/kernels/device_data.h"

namespace sluice::gpu::test {

struct Q8Rows {
  uint32_t cols;
  std::vector<std::byte> bytes;

  const std::byte* row(uint32_t r) const { return bytes.data() + r * q8_layout(cols).row_bytes; }
  int byte(uint32_t r, uint32_t c) const { return static_cast<int8_t>(row(r)[c]); }
  Q8Scale block(uint32_t r, uint32_t b) const {
    Q8Scale scale;
    std::memcpy(&scale, row(r) + q8_layout(cols).scales + b * sizeof scale, sizeof scale);
    return scale;
  }
  double value(uint32_t r, uint32_t c) const { return double{block(r, c / 32).scale} * byte(r, c); }
  float bf16(uint32_t r, uint32_t c) const {
    uint16_t bits;
    std::memcpy(&bits, row(r) + q8_layout(cols).bf16 + size_t{2} * c, 2);
    return bf16_to_float(bits);
  }
};

// The q8 rows of x, in device memory.
inline DeviceArray<std::byte> quantized(const std::vector<float>& x, uint32_t rows, uint32_t cols) {
  const DeviceArray<float> from(x);
  DeviceArray<std::byte> out(rows * act_row_bytes(ActFormat::q8, cols));
  run_call(QuantizeCall{from.data(), ActFormat::q8, rows, cols, out.data()});
  return out;
}

}  // namespace sluice::gpu::test
