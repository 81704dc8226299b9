// TileProduct: products of packed tiles of one size (TileCall in cpu/kernels/kernels.h), in one format: of bf16 by a
// library, oneDNN, where the build found it, or of 8-bit integers by our own kernels.
//
// A tile is act_group rows of weights and as many tokens, with up to most_cols columns. All calls of a width are
// computed alike, and a row's bits depend neither on how many tokens or rows a product has nor on where in a tile they
// lie; tests/cpu holds the library to that.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/bytes.h"
#include "cpu/kernels/kernels.h"
#include "sluice/status.h"

namespace sluice::cpu {

class TileProduct {
 public:
  static constexpr uint32_t most_cols = 1024;           // a multiple of every block
  static constexpr uint64_t scratch_bytes = 128 * KiB;  // of a thread

  virtual ~TileProduct() = default;

  virtual ActFormat format() const = 0;  // of both sides

  // What calls of this width need is made, unless it is there. By one thread at a time, also beside multiply() of
  // other widths. unsupported where the library has no fast kernel for it or asks for more than scratch_bytes.
  virtual Status prepare(uint32_t cols) = 0;

  // Of a prepared width, as thread `thread`: one call of each at a time. False if the library failed, which it does
  // for lack of memory alone.
  virtual bool multiply(const TileCall& call, uint32_t thread) = 0;

  virtual const std::string& name() const = 0;  // with a library's version, and the kernel
};

// Makes one for threads 0 to n_threads - 1, the i-th with scratch_bytes at scratch + i * stride, aligned to 64 bytes.
using TileMaker =
    std::function<Result<std::unique_ptr<TileProduct>>(uint32_t n_threads, std::byte* scratch, uint64_t stride)>;

// unavailable in builds without a library, unsupported where it has no fast kernel for this processor.
TileMaker bf16_tiles();

// By matrix units where this process may use them, and else by the kernels of an instruction set, with the same bits.
TileMaker wide8_tiles(const KernelTable& kernels);

}  // namespace sluice::cpu
