// What the weight kernels are judged by: the formats of core/dtype.h decoded in double precision, straight
// from their description, and random data of any format in buffers that end where the data ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "core/dtype.h"
#include "cpu/isa.h"

namespace sluice::test {

using Rng = std::mt19937;

// The instruction sets that this machine can run.
std::vector<cpu::Isa> supported_isas();

// `bytes` on the heap, beginning `shift` bytes behind an aligned address and ending with the allocation, so
// that AddressSanitizer sees every access outside.
class ExactBuffer {
 public:
  explicit ExactBuffer(size_t bytes, size_t shift = 0);
  std::byte* data() const { return memory_.get() + shift_; }
  size_t size() const { return bytes_; }

 private:
  size_t bytes_, shift_;
  std::unique_ptr<std::byte[]> memory_;
};

double half_value(uint16_t h);
uint16_t random_half(Rng& rng, double low, double high);

// n values of `type` from random blocks: every bit pattern of quants and sub-block scales occurs, the
// half-precision scales have sizes that weights have, of either sign. extreme: only the largest and
// smallest quants.
void random_weights(DType type, uint64_t n, Rng& rng, std::byte* out, bool extreme = false);

// Whether blocks hold a second half-precision scale, behind the first.
bool has_minimum(DType type);

// A weight as the sum of two terms, product and minimum (or offset 0), so that bounds on rounding errors
// can speak of |product| + |minimum|.
struct Weight {
  double product = 0, minimum = 0;
  double value() const { return product + minimum; }
};
std::vector<Weight> decode(DType type, const std::byte* from, uint64_t n);

std::vector<float> random_floats(size_t n, Rng& rng, double scale = 1.0);

}  // namespace sluice::test
