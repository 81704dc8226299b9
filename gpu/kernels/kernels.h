// The kernels of the GPU: run() puts the call's kernels into a stream and returns.
//
// All pointers of a call are device memory or mapped pinned host memory (the same address on both sides).
// The tables of a call (GatherRowsCall.rows, spans, tokens, page tables, MergeCall.parts, positions, freqs,
// index) are read by the kernels when they run, and spans and tokens of an AttentionCall are also read here
// to choose the shape of its launch: they must be written before run() and stay until the work is done.
//
// Alignment: weights any 2 bytes; x and out of a product, activations, KV pages and scratch 16 bytes where
// their rows are a multiple of 16 bytes, else that of their elements. Quantized rows are 64-byte aligned.
//
// Bits: an output row depends on its own input row, the weights and its own sequence alone, except that two
// calls have a kernel for decoding (1 to 16 tokens, and draft trees) and another for prompts (so marked, or more
// tokens): products of q8 activations (matvec_q8.cu, matmul_tile.cu) and attention over f16 pages (attention.cu,
// attention_prompt.cu). Within each, and in everything else, bits depend neither on the number of tokens nor on
// row tiles, spans or the size of the scratch memory. With a library, dense_tokens and more have a third kernel
// for products (matmul_dense.cu), whose bits may depend on all of these. Sums are fused where the sources say fmaf;
// nvcc must not fuse more (-fmad=false), or instances of one kernel for different numbers of tokens could differ.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/kernel.h"
#include "sluice/status.h"

namespace sluice::gpu {

class DenseProduct;

struct KernelContext {
  uint32_t n_sms = 1;            // for the shape of grids; never shows in results
  std::byte* scratch = nullptr;  // device memory, 16-byte aligned, used by one call at a time
  // Attention needs attention_scratch_bytes at least, the choice of best tokens best_scratch_bytes, the others nothing.
  uint64_t scratch_bytes = 0;
  // The library for products of long prompts (gpu/dense_product.h), null to do without it; outlives the context.
  // It is used where the scratch memory has dense_least_scratch_bytes.
  DenseProduct* dense = nullptr;
  uint32_t sm_shared_bytes = 0;  // shared memory of an SM; 0: grids are not evened out by it. Never shows in results
  bool transfers = false;        // kernels may use transfer_row() (intrinsics.h): compute capability 9.0 and later
};

// Errors: unsupported (a type or shape without kernels), over_budget (scratch too small), or the launch's.
Status run(cudaStream_t stream, const KernelCall& call, const KernelContext& context);

// Some calls, one behind the other, have a kernel in common, with the bits that they have alone: products of the same
// activations for 1 to 16 tokens (matvec_q8.cu), a norm, a gated activation or attention of few tokens and the
// quantizing of what it makes, the rotations of queries and keys and the append of these (rope_append.cu). joins():
// whether `next` may be run with the calls that are held back for it, which may be run together. Calls that were held
// back are run by run(); of all sizes up to most_joint.
inline constexpr size_t most_joint = 8;
bool joins(std::span<const KernelCall> held, const KernelCall& next);
Status run(cudaStream_t stream, std::span<const KernelCall> calls, const KernelContext& context);

// f32 for weights that are not quantized and for Compute::f32, q8 otherwise.
ActFormat act_format(DType weights, Compute compute);

// Bytes from one row to the next; 4 * cols for f32, a multiple of 64 for q8 (gpu/kernels/q8_rows.h).
uint64_t act_row_bytes(ActFormat format, uint32_t cols);

// The least scratch memory with which attention works on this many heads of this size; it goes faster with
// room for the partial results of all pages and tokens: this, times (tokens * pages + tokens) / 2.
inline uint64_t attention_scratch_bytes(uint32_t n_heads, uint32_t head_dim) {
  return 2 * uint64_t{n_heads} * (uint64_t{head_dim} + 2) * sizeof(float);
}

// Scratch memory in which the best tokens of one row of logits are chosen: the best of each part of the row. With room
// for several rows they go at once.
inline constexpr uint32_t best_part_tokens = 2048;
inline uint32_t best_parts(uint32_t n_vocab) { return (n_vocab + best_part_tokens - 1) / best_part_tokens; }
inline uint64_t best_scratch_bytes(uint32_t n_vocab) {
  return uint64_t{best_parts(n_vocab)} * most_best * sizeof(uint64_t);
}

inline constexpr uint32_t decode_tokens = 16;                // the most that count as decode
inline constexpr uint32_t dense_tokens = decode_tokens + 1;  // the least for which weights are dequantized

// Rows of weights that are dequantized together: some 32 MiB of bf16, which the L2 of a large card mostly holds, but
// enough rows to keep its multiprocessors busy.
inline constexpr uint32_t dense_least_rows = 128, dense_busy_rows = 1024;
inline uint32_t dense_most_rows(uint32_t cols) {
  const uint32_t rows = (16u << 20) / (cols == 0 ? 1 : cols) / dense_least_rows * dense_least_rows;
  return rows < dense_busy_rows ? dense_busy_rows : rows;
}
// Scratch memory with which a library makes the products of `rows` x `cols` weights: at least, and to be fastest.
inline uint64_t dense_least_scratch_bytes(uint32_t rows, uint32_t cols) {
  return 2ull * cols * (rows < dense_least_rows ? rows : dense_least_rows);
}
inline uint64_t dense_scratch_bytes(uint32_t rows, uint32_t cols) {
  return 2ull * cols * (rows < dense_most_rows(cols) ? rows : dense_most_rows(cols));
}

// One for each type of call; what run() chooses from.
Status run(cudaStream_t stream, const GatherRowsCall& call, const KernelContext& context);
Status run(cudaStream_t stream, const RmsNormCall& call, const KernelContext& context);
Status run(cudaStream_t stream, const QuantizeCall& call, const KernelContext& context);
Status run(cudaStream_t stream, const MatmulCall& call, const KernelContext& context);
Status run(cudaStream_t stream, const RopeTableCall& call, const KernelContext& context);
Status run(cudaStream_t stream, const RopeCall& call, const KernelContext& context);
Status run(cudaStream_t stream, const KvAppendCall& call, const KernelContext& context);
Status run(cudaStream_t stream, const AttentionCall& call, const KernelContext& context);
Status run(cudaStream_t stream, const MergeStatesCall& call, const KernelContext& context);
Status run(cudaStream_t stream, const GatedActCall& call, const KernelContext& context);
Status run(cudaStream_t stream, const SoftcapCall& call, const KernelContext& context);
Status run(cudaStream_t stream, const CopyRowsCall& call, const KernelContext& context);
Status run(cudaStream_t stream, const RouteCall& call, const KernelContext& context);
Status run(cudaStream_t stream, const MergeCall& call, const KernelContext& context);
Status run(cudaStream_t stream, const BestLogitsCall& call, const KernelContext& context);

// The kernels that a product chooses from.
Status matvec_q8(cudaStream_t stream, std::span<const MatmulCall> calls,
                 const KernelContext& context);                   // 1 to 16 tokens
Status matvec_f32(cudaStream_t stream, const MatmulCall& call);   // any number
Status matmul_tile(cudaStream_t stream, const MatmulCall& call);  // q8, any number; fast from some 32 on
bool matmul_dense_serves(const MatmulCall& call, const KernelContext& context);
Status matmul_dense(cudaStream_t stream, const MatmulCall& call, const KernelContext& context);  // with a library

}  // namespace sluice::gpu
