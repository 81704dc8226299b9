// out[t][r] = sum_c weights[r][c] * x[t][c] for 1 to 16 tokens: quantized weights, 8-bit activations, on the tensor
// cores' integers.
//
// Bytes: the weights once (rows * cols * 0.56 to 1.06), the activations from the caches. Flops: 2 * tokens * rows *
// cols. Bound by device memory: unpacking a chunk of weights costs a third of the time that its bytes take.
//
// A block has 16 rows, its four warps take turns at their chunks of 256 columns, which come through shared memory
// ahead of use (matvec_stage.h). The integer dot product of each block of 32 values (Q6_K: 16) is exact; scale_x *
// (scale_w * dot + min_w * sum_x) is added to one of four sums of the warp, that of blocks 2j and 2j + 1 of every
// chunk. The four are added as (0 + 1) + (2 + 3), then the warps in their order. All that depends on the column
// alone, so a row's bits are the same for any number of tokens and any row tile.
//
// One token has a kernel of its own, with the same sums: a product of 16 rows and 8 columns would be 7/8 waste, so
// the columns are the eight blocks of the chunk, each multiplied with the weights of its block and zeros else. The
// products of one accumulator are then those of different blocks, which different lanes scale and add.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/matvec_stage.h"
#include "gpu/kernels/q8_rows.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t warps = 4, stages = 3;
constexpr uint32_t scale_pitch = stage_rows + 2;  // the lanes of eight rows and four blocks meet different banks

template <class F>
struct WarpMemory {
  alignas(16) std::byte stage[stages][ChunkOf<F>::stage_bytes];
  ScaleMin scales[subs_per_chunk * scales_per_sub<F>][scale_pitch];
};

// A warp's part of the work: chunks first, first + warps, …
struct Share {
  RowTile tile;
  uint32_t n_chunks, n_subs;  // of a row
};

SLUICE_DEVICE Share share_of(const MatmulCall& call, uint64_t row_bytes) {
  return {{call.weights, row_bytes, block_x() * stage_rows, call.rows - 1},
          (call.cols + chunk_cols - 1) / chunk_cols,
          call.cols / 32};
}

// Starts the copies of the warp's i-th chunk; an empty group where there is none.
template <class F>
SLUICE_DEVICE void start_chunk(const Share& share, uint32_t i, WarpMemory<F>& memory) {
  const uint32_t chunk = warp() + i * warps;
  if (chunk < share.n_chunks) stage_chunk<F>(share.tile, chunk, memory.stage[i % stages]);
  async_commit();
}

// A lane converts half the scales of a row.
template <class F, bool aligned>
SLUICE_DEVICE void convert_scales(const Share& share, uint32_t chunk, const std::byte* stage, WarpMemory<F>& memory) {
  constexpr uint32_t n = 4 * scales_per_sub<F>;
  const uint32_t row = lane() % stage_rows, quarter = lane() / stage_rows;
  ScaleMin scales[n];
  load_scales(F{}, staged_row<F, aligned>(share.tile, stage, chunk, row), quarter, scales);
  SLUICE_UNROLL
  for (uint32_t i = 0; i < n; ++i) memory.scales[quarter * n + i][row] = scales[i];
}

// acc + the part of one block of activations.
template <class F>
SLUICE_DEVICE float add_scaled(const ScaleMin& weight, const Q8Scale& x, int32_t dot, float acc) {
  const auto value = static_cast<float>(dot);
  const float product = F::has_min ? fmaf(weight.scale, value, weight.min * x.sum) : weight.scale * value;
  return fmaf(x.scale, product, acc);
}

// All chunks of a warp: body(chunk, its index among the warp's, stage), the scales converted.
template <class F, bool aligned, class Body>
SLUICE_DEVICE void for_each_chunk(const Share& share, WarpMemory<F>& memory, const Body& body) {
  SLUICE_UNROLL
  for (uint32_t i = 0; i + 1 < stages; ++i) start_chunk(share, i, memory);
  uint32_t i = 0;
  for (uint32_t chunk = warp(); chunk < share.n_chunks; chunk += warps, ++i) {
    async_wait<stages - 2>();
    warp_barrier();  // the chunk is there for all lanes, and all are done with the one before it
    start_chunk(share, i + stages - 1, memory);
    const std::byte* stage = memory.stage[i % stages];
    convert_scales<F, aligned>(share, chunk, stage, memory);
    warp_barrier();
    if ((chunk + 1) * subs_per_chunk <= share.n_subs) body(chunk, stage, subs_per_chunk);
    else body(chunk, stage, share.n_subs - chunk * subs_per_chunk);
  }
  async_wait<0>();
}

// The dot products of a block of 32 values of 16 rows; Q6_K: of its halves.
template <class F>
using Dots = int32_t[scales_per_sub<F>][4];

template <class F>
SLUICE_DEVICE void add_dots(const int32_t (&upper)[2], const int32_t (&lower)[2], const uint32_t (&x)[2],
                            Dots<F>& dots) {
  const uint32_t a[4] = {static_cast<uint32_t>(upper[0]), static_cast<uint32_t>(lower[0]),
                         static_cast<uint32_t>(upper[1]), static_cast<uint32_t>(lower[1])};
  if constexpr (scales_per_sub<F> == 1) {
    mma_m16n8k32_s8(dots[0], a, x);
  } else {
    mma_m16n8k16_s8(dots[0], a, x[0]);
    mma_m16n8k16_s8(dots[1], a + 2, x[1]);
  }
}

SLUICE_DEVICE uint32_t load_word(const std::byte* p) { return *reinterpret_cast<const uint32_t*>(p); }

// Adds the warps' sums of 16 rows x N tokens up and stores them. partial: warps x N x 16.
template <uint32_t N>
SLUICE_DEVICE void add_warps_and_store(const MatmulCall& call, const float* partial) {
  block_barrier();
  for (uint32_t i = thread_x(); i < N * stage_rows; i += 32 * warps) {
    float sum = partial[i];
    SLUICE_UNROLL
    for (uint32_t w = 1; w < warps; ++w) sum += partial[w * N * stage_rows + i];
    const uint32_t token = i / stage_rows, row = block_x() * stage_rows + i % stage_rows;
    if (token < call.n_tokens && row < call.rows) store_product(call, token, row, sum);
  }
}

template <class F, bool aligned>
SLUICE_KERNEL void matvec_one_kernel(MatmulCall call, Q8Layout layout, uint64_t row_bytes) {
  SLUICE_DYNAMIC_SHARED(WarpMemory<F>, all_memory);
  SLUICE_SHARED(float, partial, [warps * stage_rows]);
  WarpMemory<F>& memory = all_memory[warp()];
  const Share share = share_of(call, row_bytes);
  const uint32_t g = lane() / 4, t = lane() % 4;
  const auto* x_scales = reinterpret_cast<const Q8Scale*>(call.x + layout.scales);
  float acc[2] = {};  // rows g and g + 8, blocks 2t and 2t + 1
  for_each_chunk<F, aligned>(share, memory, [&](uint32_t chunk, const std::byte* stage, uint32_t n_subs) {
    const std::byte* x = call.x + uint64_t{chunk} * chunk_cols + 32 * least(g, n_subs - 1) + 4 * t;
    const uint32_t mine[2] = {load_word(x), load_word(x + 16)};
    Q8Scale scale[2];
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 2; ++i) scale[i] = x_scales[chunk * subs_per_chunk + least(2 * t + i, n_subs - 1)];
    const StagedRow<aligned> upper = staged_row<F, aligned>(share.tile, stage, chunk, g);
    const StagedRow<aligned> lower = staged_row<F, aligned>(share.tile, stage, chunk, g + 8);
    Dots<F> dots = {};
    SLUICE_UNROLL
    for (uint32_t s = 0; s < subs_per_chunk; s += subs_at_once<F>) {
      if (s >= n_subs) break;
      const Packed<F> a = load_packed(F{}, upper, s, t), b = load_packed(F{}, lower, s, t);
      SLUICE_UNROLL
      for (uint32_t i = 0; i < subs_at_once<F>; ++i) {
        const uint32_t words[2] = {g == s + i ? mine[0] : 0, g == s + i ? mine[1] : 0};
        add_dots<F>(a.q[i], b.q[i], words, dots);
      }
    }
    SLUICE_UNROLL
    for (uint32_t e = 0; e < 4; ++e) {
      const uint32_t s = 2 * t + e % 2;
      SLUICE_UNROLL
      for (uint32_t k = 0; k < scales_per_sub<F>; ++k) {
        const ScaleMin& weight = memory.scales[s * scales_per_sub<F> + k][g + e / 2 * 8];
        if (s < n_subs) acc[e / 2] = add_scaled<F>(weight, scale[e % 2], dots[k][e], acc[e / 2]);
      }
    }
  });
  SLUICE_UNROLL
  for (uint32_t h = 0; h < 2; ++h) {
    acc[h] += shuffle_xor(acc[h], 1);
    acc[h] += shuffle_xor(acc[h], 2);
    if (t == 0) partial[warp() * stage_rows + g + 8 * h] = acc[h];
  }
  add_warps_and_store<1>(call, partial);
}

// N: tokens / 8, rounded up.
template <class F, bool aligned, uint32_t N>
SLUICE_KERNEL void matvec_q8_kernel(MatmulCall call, Q8Layout layout, uint64_t row_bytes) {
  SLUICE_DYNAMIC_SHARED(WarpMemory<F>, all_memory);
  SLUICE_SHARED(float, partial, [warps * 8 * N * stage_rows]);
  WarpMemory<F>& memory = all_memory[warp()];
  const Share share = share_of(call, row_bytes);
  const uint32_t g = lane() / 4, t = lane() % 4;
  const std::byte* x[N];           // of token 8n + g
  const Q8Scale* x_scales[N][2];   // of tokens 8n + 2t and one more
  SLUICE_UNROLL
  for (uint32_t n = 0; n < N; ++n) {
    x[n] = call.x + least(8 * n + g, call.n_tokens - 1) * layout.row_bytes + 4 * t;
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 2; ++i)
      x_scales[n][i] = reinterpret_cast<const Q8Scale*>(
          call.x + least(8 * n + 2 * t + i, call.n_tokens - 1) * layout.row_bytes + layout.scales);
  }
  float acc[N][4][4] = {};  // rows and tokens as in a fragment, blocks 2j and 2j + 1
  for_each_chunk<F, aligned>(share, memory, [&](uint32_t chunk, const std::byte* stage, uint32_t n_subs) {
    const StagedRow<aligned> upper = staged_row<F, aligned>(share.tile, stage, chunk, g);
    const StagedRow<aligned> lower = staged_row<F, aligned>(share.tile, stage, chunk, g + 8);
    SLUICE_UNROLL
    for (uint32_t first = 0; first < subs_per_chunk; first += subs_at_once<F>) {
      if (first >= n_subs) break;
      const Packed<F> a = load_packed(F{}, upper, first, t), b = load_packed(F{}, lower, first, t);
      SLUICE_UNROLL
      for (uint32_t i = 0; i < subs_at_once<F>; ++i) SLUICE_UNROLL
      for (uint32_t n = 0; n < N; ++n) {
        const uint32_t s = first + i, block = chunk * subs_per_chunk + s;
        const uint32_t words[2] = {load_word(x[n] + 32 * block), load_word(x[n] + 32 * block + 16)};
        Dots<F> dots = {};
        add_dots<F>(a.q[i], b.q[i], words, dots);
        const Q8Scale scale[2] = {x_scales[n][0][block], x_scales[n][1][block]};
        SLUICE_UNROLL
        for (uint32_t e = 0; e < 4; ++e) SLUICE_UNROLL
        for (uint32_t k = 0; k < scales_per_sub<F>; ++k)
          acc[n][e][s / 2] = add_scaled<F>(memory.scales[s * scales_per_sub<F> + k][g + e / 2 * 8], scale[e % 2],
                                           dots[k][e], acc[n][e][s / 2]);
      }
    }
  });
  SLUICE_UNROLL
  for (uint32_t n = 0; n < N; ++n) SLUICE_UNROLL
  for (uint32_t e = 0; e < 4; ++e)
    partial[(warp() * 8 * N + 8 * n + 2 * t + e % 2) * stage_rows + g + e / 2 * 8] =
        (acc[n][e][0] + acc[n][e][1]) + (acc[n][e][2] + acc[n][e][3]);
  add_warps_and_store<8 * N>(call, partial);
}

template <class F, bool aligned>
Status start(cudaStream_t stream, const MatmulCall& call, uint64_t bytes_of_row) {
  const LaunchShape shape{.grid_x = blocks_for(call.rows, stage_rows),
                          .block_x = 32 * warps,
                          .shared_bytes = warps * sizeof(WarpMemory<F>)};
  const auto launched = [&](auto kernel) {
    return launch(stream, launch_info("matvec_q8", call), shape, kernel, call, q8_layout(call.cols), bytes_of_row);
  };
  if (call.n_tokens == 1) return launched(matvec_one_kernel<F, aligned>);
  if (call.n_tokens <= 8) return launched(matvec_q8_kernel<F, aligned, 1>);
  return launched(matvec_q8_kernel<F, aligned, 2>);
}

}  // namespace

Status matvec_q8(cudaStream_t stream, const MatmulCall& call) {
  return with_quantized("matvec", call.dtype, [&]<class F>(F) {
    const uint64_t bytes_of_row = row_bytes(call.dtype, call.cols);
    const bool aligned = reinterpret_cast<uintptr_t>(call.weights) % 4 == 0 && bytes_of_row % 4 == 0;
    // Chunks that are no multiple of 4 begin at other places in turn.
    if constexpr (ChunkOf<F>::bytes % 4 == 0)
      if (aligned) return start<F, true>(stream, call, bytes_of_row);
    return start<F, false>(stream, call, bytes_of_row);
  });
}

}  // namespace sluice::gpu
