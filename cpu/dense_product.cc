#include "cpu/dense_product.h"

#include <algorithm>

#include "core/error.h"

namespace sluice::cpu {
namespace {

constexpr uint32_t pass_tokens = 512;  // that share the dequantizing of a panel
constexpr uint32_t tile_values = act_group * act_group;

}  // namespace

static_assert(TileProduct::most_cols % wide_block == 0 && pass_tokens % act_group == 0);

// Of one thread.
struct DenseProduct::Scratch {
  alignas(4096) std::byte panel[panel_rows * TileProduct::most_cols * 2];  // of the widest form, bf16
  alignas(64) float sums[panel_rows * pass_tokens];                        // tiles: by group of tokens, by unit of rows
  alignas(64) std::byte library[TileProduct::scratch_bytes];
};

// Rows and tokens of a product, at most panel_rows and pass_tokens.
struct DenseProduct::Part {
  uint32_t row, n_rows, token, n_tokens;

  uint32_t n_units() const { return static_cast<uint32_t>(div_up(n_rows, row_unit)); }
  uint32_t n_groups() const { return static_cast<uint32_t>(div_up(n_tokens, act_group)); }
  uint64_t sums_at(uint32_t group, uint32_t unit) const { return (uint64_t{group} * n_units() + unit) * tile_values; }
};

uint64_t DenseProduct::scratch_bytes(uint32_t n_threads) { return n_threads * sizeof(Scratch); }

Result<std::unique_ptr<DenseProduct>> DenseProduct::create(const KernelTable& kernels, uint32_t n_threads,
                                                           const std::vector<TileMaker>& makers) {
  std::unique_ptr<DenseProduct> product(new DenseProduct(kernels));
  SLUICE_ASSIGN_OR_RETURN(product->memory_, HostMemory::create(scratch_bytes(n_threads)));
  for (const TileMaker& make : makers) {
    SLUICE_ASSIGN_OR_RETURN(auto tiles, make(n_threads, product->scratch(0).library, sizeof(Scratch)));
    product->tiles_.push_back(std::move(tiles));
  }
  return product;
}

TileProduct* DenseProduct::find(ActFormat format) const {
  for (const auto& tiles : tiles_)
    if (tiles->format() == format) return tiles.get();
  return nullptr;
}

std::string DenseProduct::name() const {
  std::string all;
  for (const auto& tiles : tiles_) all += (all.empty() ? "" : ", ") + tiles->name();
  return all;
}

DenseProduct::Scratch& DenseProduct::scratch(uint32_t thread) const {
  return reinterpret_cast<Scratch*>(memory_->base())[thread];
}

Status DenseProduct::prepare(ActFormat format, uint32_t cols) {
  TileProduct* const tiles = find(format);
  SLUICE_CHECK(tiles != nullptr);
  SLUICE_RETURN_IF_ERROR(tiles->prepare(std::min(cols, TileProduct::most_cols)));
  const uint32_t rest = cols % TileProduct::most_cols;
  return rest == 0 ? Status() : tiles->prepare(rest);
}

void DenseProduct::multiply(const MatmulCall& call, Share share, uint32_t thread) {
  TileProduct& tiles = *find(call.x_format);
  const Range rows = range_of(call.rows, share, row_unit);
  for (uint32_t token = 0; token < call.n_tokens; token += pass_tokens)
    for (uint32_t row = rows.begin; row < rows.end; row += panel_rows)
      multiply_panel(tiles, call,
                     {row, std::min(panel_rows, rows.end - row), token, std::min(pass_tokens, call.n_tokens - token)},
                     thread);
}

void DenseProduct::multiply_panel(TileProduct& tiles, const MatmulCall& call, const Part& part, uint32_t thread) {
  for (uint32_t col = 0; col < call.cols; col += TileProduct::most_cols) {
    if (failed_.load(std::memory_order_relaxed)) return;
    if (!add_columns(tiles, call, part, col, thread)) failed_.store(true, std::memory_order_relaxed);
  }
  store(call, part, thread);
}

// Rows of the last tile that are not of the part hold what was there before: their sums are not stored.
bool DenseProduct::add_columns(TileProduct& tiles, const MatmulCall& call, const Part& part, uint32_t first_col,
                               uint32_t thread) {
  Scratch& s = scratch(thread);
  const uint32_t cols = std::min(TileProduct::most_cols, call.cols - first_col);
  const uint64_t row_size = row_bytes(call.dtype, call.cols);
  const std::byte* from = call.weights + part.row * row_size + row_bytes(call.dtype, first_col);
  const ActFormat format = call.x_format;
  kernels_.pack_panel({from, call.dtype, row_size, part.n_rows, cols, format, s.panel});
  const uint64_t unit_bytes = group_bytes(format, cols), x_bytes = group_bytes(format, call.cols);
  const std::byte* x = call.x + part.token / act_group * x_bytes + group_bytes(format, first_col);
  for (uint32_t group = 0; group < part.n_groups(); ++group, x += x_bytes) {
    for (uint32_t unit = 0; unit < part.n_units(); ++unit) {
      const TileCall tile{s.panel + unit * unit_bytes, x, s.sums + part.sums_at(group, unit), cols, first_col != 0};
      if (!tiles.multiply(tile, thread)) return false;
    }
  }
  return true;
}

void DenseProduct::store(const MatmulCall& call, const Part& part, uint32_t thread) const {
  const Scratch& s = scratch(thread);
  for (uint32_t group = 0; group < part.n_groups(); ++group)
    for (uint32_t unit = 0; unit < part.n_units(); ++unit) {
      const uint32_t row = unit * row_unit, token = group * act_group;
      kernels_.store_tile(call,
                          {s.sums + part.sums_at(group, unit), part.row + row, std::min(row_unit, part.n_rows - row),
                           part.token + token, std::min(act_group, part.n_tokens - token)});
    }
}

Status DenseProduct::take_failure() {
  if (!failed_.load(std::memory_order_relaxed)) return {};
  failed_.store(false, std::memory_order_relaxed);
  return error(Code::over_budget, "{} failed to multiply: out of memory", name());
}

}  // namespace sluice::cpu
