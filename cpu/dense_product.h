// DenseProduct: products of quantized weights with the activations of prompts in groups, on matrix units where there
// are.
//
// A weight of a prompt is used for hundreds of tokens, so that it pays to unpack it. A thread takes a panel of rows
// and columns, packs it as bf16 or 8-bit integers into scratch that stays in its cache, multiplies it with one group of
// tokens after the other (cpu/tile_product.h), and goes on to the next columns; in the end the sums are turned and
// stored.
//
// Bytes: the weights once for 512 tokens; the activations once for each 128 rows, from the last cache. A weight becomes
// bf16 in some 0.1 to 0.3 ns, an integer in as many.
//
// The bits of out[t][r]: those of the tiles for each 1024 columns, added in order. They depend on the row, the token,
// cols, and the tiles' kernel alone.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "cpu/host_memory.h"
#include "cpu/kernels/kernels.h"
#include "cpu/tile_product.h"

namespace sluice::cpu {

class DenseProduct {
 public:
  // With tiles of each maker, which are of different formats. over_budget if there is no memory for the scratch; what a
  // maker says. `kernels` outlives it.
  static Result<std::unique_ptr<DenseProduct>> create(const KernelTable& kernels, uint32_t n_threads,
                                                      const std::vector<TileMaker>& makers);

  static uint64_t scratch_bytes(uint32_t n_threads);

  // Rows of a product are shared out in multiples of this.
  static constexpr uint32_t row_unit = act_group;
  // Of which a share should have as many, where there are enough: the activations are read once for each such panel.
  static constexpr uint32_t panel_rows = 2 * row_unit;

  bool serves(ActFormat format) const { return find(format) != nullptr; }

  // Before products of a format that it serves and of such a width are run: by one thread at a time, beside multiply()
  // of others.
  Status prepare(ActFormat format, uint32_t cols);

  // A share of a product as a kernel does it (cpu/kernels/kernels.h), by thread `thread` of the team. After a failure
  // nothing is computed any more, until the failure is taken.
  void multiply(const MatmulCall& call, Share share, uint32_t thread);
  Status take_failure();

  std::string name() const;  // of all tiles

 private:
  struct Part;
  struct Scratch;

  explicit DenseProduct(const KernelTable& kernels) : kernels_(kernels) {}
  Scratch& scratch(uint32_t thread) const;
  TileProduct* find(ActFormat format) const;
  void multiply_panel(TileProduct& tiles, const MatmulCall& call, const Part& part, uint32_t thread);
  bool add_columns(TileProduct& tiles, const MatmulCall& call, const Part& part, uint32_t first_col, uint32_t thread);
  void store(const MatmulCall& call, const Part& part, uint32_t thread) const;

  const KernelTable& kernels_;
  std::unique_ptr<HostMemory> memory_;
  std::vector<std::unique_ptr<TileProduct>> tiles_;  // which share the library's scratch
  std::atomic<bool> failed_{false};
};

}  // namespace sluice::cpu
