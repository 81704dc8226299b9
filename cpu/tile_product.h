// TileProduct: products of bf16 tiles of one size by a library, oneDNN, where the build found it.
//
// A tile is 64 rows of weights and 64 tokens, with up to most_cols columns. Since all calls of a width are of the same
// shape the library computes them all alike, and a row's bits depend neither on how many tokens or rows a product has
// nor on where in a tile they lie; tests/cpu holds the library to that.
#pragma once

#include <memory>
#include <string>

#include "core/bytes.h"
#include "core/kernel.h"
#include "sluice/status.h"

namespace sluice::cpu {

// c[r][t] (+)= sum_k a[r][k] * b[k][t], summed in f32.
struct TileCall {
  const uint16_t* a;  // rows x cols
  const uint16_t* b;  // cols / 2 x act_group pairs of columns: part of a group of bf16 activations
  float* c;           // rows x act_group
  uint32_t cols;      // a multiple of 32
  bool accumulate;    // add to c instead of replacing it
};

class TileProduct {
 public:
  static constexpr uint32_t rows = 64, most_cols = 1024;
  static constexpr uint64_t scratch_bytes = 128 * KiB;  // of a thread

  virtual ~TileProduct() = default;

  // What calls of this width need is made, unless it is there. By one thread at a time, also beside multiply() of
  // other widths. unsupported where the library has no fast kernel for it or asks for more than scratch_bytes.
  virtual Status prepare(uint32_t cols) = 0;

  // Of a prepared width, as thread `thread`: one call of each at a time. False if the library failed, which it does
  // for lack of memory alone.
  virtual bool multiply(const TileCall& call, uint32_t thread) = 0;

  virtual const std::string& name() const = 0;  // of the library, its version and its kernel
  virtual bool has_matrix_units() const = 0;    // the kernel uses AMX
};

// For threads 0 to n_threads - 1, the i-th with scratch_bytes at scratch + i * stride, aligned to 64 bytes.
// unavailable in builds without a library, unsupported where it has no fast kernel for this processor.
Result<std::unique_ptr<TileProduct>> make_tile_product(uint32_t n_threads, std::byte* scratch, uint64_t stride);

}  // namespace sluice::cpu
