// DenseProduct: products of quantized weights with the bf16 activations of prompts, on matrix units where there are.
//
// A weight of a prompt is used for hundreds of tokens, so that it pays to dequantize it. A thread takes a panel of rows
// and columns, dequantizes it to bf16 in scratch that stays in its cache, multiplies it with one group of tokens after
// the other (cpu/tile_product.h), and goes on to the next columns; in the end the sums are turned and stored.
//
// Bytes: the weights once for 512 tokens; the activations once for each 128 rows, from the last cache. A weight is
// dequantized in f32 and rounded to bf16, at some 0.1 to 0.3 ns.
//
// The bits of out[t][r]: those of the library for each 1024 columns, added in order. They depend on the row, the token,
// cols, the library and the ISA alone.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "cpu/host_memory.h"
#include "cpu/kernels/kernels.h"
#include "cpu/tile_product.h"

namespace sluice::cpu {

class DenseProduct {
 public:
  // As make_tile_product(), which another function may stand in for; over_budget if there is no memory for the scratch.
  // `kernels` outlives it.
  using TileMaker = std::function<Result<std::unique_ptr<TileProduct>>(uint32_t, std::byte*, uint64_t)>;
  static Result<std::unique_ptr<DenseProduct>> create(const KernelTable& kernels, uint32_t n_threads,
                                                      const TileMaker& make = make_tile_product);

  static uint64_t scratch_bytes(uint32_t n_threads);

  // Rows of a product are shared out in multiples of this.
  static constexpr uint32_t row_unit = TileProduct::rows;
  // Of which a share should have as many, where there are enough: the activations are read once for each such panel.
  static constexpr uint32_t panel_rows = 2 * row_unit;

  // Before products of such a width are run: by one thread at a time, beside multiply() of others.
  Status prepare(uint32_t cols);

  // A share of a product of ActFormat::bf16 as a kernel does it (cpu/kernels/kernels.h), by thread `thread` of the
  // team. After a failure nothing is computed any more, until the failure is taken.
  void multiply(const MatmulCall& call, Share share, uint32_t thread);
  Status take_failure();

  const std::string& name() const { return tiles_->name(); }
  bool has_matrix_units() const { return tiles_->has_matrix_units(); }

 private:
  struct Part;
  struct Scratch;

  explicit DenseProduct(const KernelTable& kernels) : kernels_(kernels) {}
  Scratch& scratch(uint32_t thread) const;
  void multiply_panel(const MatmulCall& call, const Part& part, uint32_t thread);
  bool add_columns(const MatmulCall& call, const Part& part, uint32_t first_col, uint32_t thread);
  void store(const MatmulCall& call, const Part& part, uint32_t thread) const;

  const KernelTable& kernels_;
  std::unique_ptr<HostMemory> memory_;
  std::unique_ptr<TileProduct> tiles_;
  std::atomic<bool> failed_{false};
};

}  // namespace sluice::cpu
