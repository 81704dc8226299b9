// The kernels of one instruction set, as a table of functions.
//
// Each source in cpu/kernels/ is compiled once per ISA into its own namespace (SLUICE_ISA: scalar, avx2,
// avx512) and cpu/isa.h picks a table at run time. A kernel is called by every thread of the team with
// its share of the work; it divides the work itself and neither locks, allocates nor waits. The team puts
// a barrier after each call. Shares divide output rows (or tokens, or heads), never a sum, so that the
// bits do not depend on the number of threads.
#pragma once

#include "core/device.h"
#include "core/kernel.h"

namespace sluice::cpu {

// Thread `index` of `count` that work on one call together.
struct Share {
  uint32_t index = 0;
  uint32_t count = 1;
};

// The part [begin, end) of n items that falls to a share, in multiples of `unit` but for the last.
struct Range {
  uint32_t begin, end;
};
inline Range range_of(uint32_t n, Share share, uint32_t unit = 1) {
  const uint64_t units = (uint64_t{n} + unit - 1) / unit;
  const uint64_t begin = units * share.index / share.count * unit;
  const uint64_t end = units * (share.index + 1) / share.count * unit;
  return {static_cast<uint32_t>(begin < n ? begin : n), static_cast<uint32_t>(end < n ? end : n)};
}

// Rows of a product are shared out in multiples of this.
inline constexpr uint32_t matmul_row_unit = 16;

// --- parts of products of prompts, which cpu/dense_product.h puts together
//
// Both sides are packed in groups of act_group, rows of weights and tokens. A group of `cols` columns, a multiple of
// 32:
//   bf16: of weights row by row; of activations cols / 2 rows of act_group pairs, a pair being two columns of a token.
//   wide8: for each block of wide_block columns, of which the last may have fewer, its steps of wide_step columns, the
//     last one filled up with zeros, then a float scale for each row or token. A step is four pieces of 16 rows or
//     tokens, 1 KiB each: of weights 64 bytes of each row, of activations sixteen times four bytes of each token.
// Groups begin at multiples of 64 bytes.
inline constexpr uint32_t wide_block = 256, wide_step = 64;

inline uint64_t wide_block_bytes(uint32_t cols) { return align_up(cols, wide_step) * act_group + act_group * 4; }

inline uint64_t group_bytes(ActFormat format, uint32_t cols) {
  if (format == ActFormat::bf16) return uint64_t{cols} * act_group * 2;
  const uint32_t rest = cols % wide_block;
  return cols / wide_block * wide_block_bytes(wide_block) + (rest == 0 ? 0 : wide_block_bytes(rest));
}

// Of all tokens of a product, whole groups.
inline uint64_t groups_bytes(ActFormat format, uint32_t n_tokens, uint32_t cols) {
  return align_up(n_tokens, act_group) / act_group * group_bytes(format, cols);
}

// Some columns of some rows of quantized weights, to be packed. bf16: each dequantized in f32 and rounded to nearest.
// wide8: dequantized in f32, and each block scaled by the largest that may be in it / 127 and rounded to nearest. cols
// is a multiple of the type's block. Of the last group, rows that there are not keep what was there before.
struct WeightPanel {
  const std::byte* from;  // the first of these columns in the first row
  DType dtype;
  uint64_t row_bytes;  // from one row to the next
  uint32_t rows, cols;
  ActFormat format;
  std::byte* out;
};

// A tile: act_group rows of weights by act_group tokens. c[r][t] (+)= sum_k a[r][k] * b[k][t], summed in f32; wide8:
// the sum over each block is exact, and is added, scaled, to those before by one fma.
struct TileCall {
  const std::byte* a;  // a group of weights
  const std::byte* b;  // a group of activations, from some column on
  float* c;            // act_group x act_group
  uint32_t cols;       // a multiple of 32
  bool accumulate;     // add to c instead of replacing it
};

// Outputs of a product from `row` and `token` on, row by row: that of row r and token t is values[r * act_group + t].
// values has rows up to a multiple of 16, which may hold anything.
struct OutputTile {
  const float* values;
  uint32_t row, n_rows, token, n_tokens;
};

struct KernelTable {
  const char* isa;  // "scalar", "avx2", "avx512"
  void (*gather_rows)(const GatherRowsCall&, Share);
  void (*rms_norm)(const RmsNormCall&, Share);
  void (*quantize)(const QuantizeCall&, Share);
  void (*matmul)(const MatmulCall&, Share);
  void (*rope_table)(const RopeTableCall&, Share);
  void (*rope)(const RopeCall&, Share);
  void (*kv_append)(const KvAppendCall&, Share);
  void (*attention)(const AttentionCall&, Share);
  void (*merge_states)(const MergeStatesCall&, Share);
  void (*gated_act)(const GatedActCall&, Share);
  void (*softcap)(const SoftcapCall&, Share);
  void (*copy_rows)(const CopyRowsCall&, Share);
  void (*route)(const RouteCall&, Share);
  void (*merge)(const MergeCall&, Share);
  void (*best_logits)(const BestLogitsCall&, Share);
  void (*pack_panel)(const WeightPanel&);
  void (*multiply_wide8)(const TileCall&);
  void (*store_tile)(const MatmulCall&, const OutputTile&);
};

// The kernel that serves a call, but for products of activations in groups.
inline void run(const KernelTable& table, const KernelCall& call, Share share) {
  struct Visitor {
    const KernelTable& t;
    Share s;
    void operator()(const GatherRowsCall& c) const { t.gather_rows(c, s); }
    void operator()(const RmsNormCall& c) const { t.rms_norm(c, s); }
    void operator()(const QuantizeCall& c) const { t.quantize(c, s); }
    void operator()(const MatmulCall& c) const { t.matmul(c, s); }
    void operator()(const RopeTableCall& c) const { t.rope_table(c, s); }
    void operator()(const RopeCall& c) const { t.rope(c, s); }
    void operator()(const KvAppendCall& c) const { t.kv_append(c, s); }
    void operator()(const AttentionCall& c) const { t.attention(c, s); }
    void operator()(const MergeStatesCall& c) const { t.merge_states(c, s); }
    void operator()(const GatedActCall& c) const { t.gated_act(c, s); }
    void operator()(const SoftcapCall& c) const { t.softcap(c, s); }
    void operator()(const CopyRowsCall& c) const { t.copy_rows(c, s); }
    void operator()(const RouteCall& c) const { t.route(c, s); }
    void operator()(const MergeCall& c) const { t.merge(c, s); }
    void operator()(const BestLogitsCall& c) const { t.best_logits(c, s); }
  };
  std::visit(Visitor{table, share}, call);
}

// Layout of q8 activations, the same for all ISAs: a row of `cols` values is cols int8 in -127..127, then
// for each block of 32 a float scale d (value = d * int8), then for each block two int16, the sums of the
// int8 of its halves, then for each block the sum of both as a float; each of the four parts is padded to
// 64 bytes. f32 rows are contiguous.
inline uint64_t q8_part_bytes(uint32_t cols) { return align_up(cols / 32 * 4, 64); }
inline uint64_t q8_scales_offset(uint32_t cols) { return align_up(cols, 64); }
inline uint64_t q8_sums_offset(uint32_t cols) { return q8_scales_offset(cols) + q8_part_bytes(cols); }
inline uint64_t q8_totals_offset(uint32_t cols) { return q8_sums_offset(cols) + q8_part_bytes(cols); }
inline uint64_t q8_row_bytes(uint32_t cols) { return q8_totals_offset(cols) + q8_part_bytes(cols); }

}  // namespace sluice::cpu
