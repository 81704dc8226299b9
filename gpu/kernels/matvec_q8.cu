// out[t][r] = sum_c weights[r][c] * x[t][c] for 1 to 16 tokens: quantized weights, 8-bit activations, on the tensor
// cores' integers.
//
// Bytes: the weights once (rows * cols * 0.56 to 1.06), the activations from the caches. Flops: 2 * tokens * rows *
// cols. Bound by device memory, and by the latency of unpacking where a matrix has few rows.
//
// A block works on tiles of 16 or 32 rows, one after the other; its four or eight warps (matvec_work.h) take turns
// at the chunks of 256 columns, which come through shared memory ahead of use (matvec_stage.h), those of the next tile
// behind those of this one. The integer dot product of each block of 32 values (Q6_K: 16) is exact; scale_x * (scale_w
// * dot + min_w * sum_x) is added to one of four sums, that of blocks 2j and 2j + 1 of every chunk. The four are added as
// (0 + 1) + (2 + 3), and what comes of chunks i, i + 8, … in the order of i: a row has eight sums, of which eight warps
// have one each, four warps two. All that depends on the column alone, so a row's bits are the same for any number of
// tokens and of warps, any row tile and any size of grids. Products of the same activations share a launch: a kernel of
// 10 us is mostly begin and end.
//
// One token has a kernel of its own, with the same sums: a product of 16 rows and 8 columns would be 7/8 waste, so
// the columns are the eight blocks of the chunk, each multiplied with the weights of its block and zeros else. The
// products of one accumulator are then those of different blocks, which different lanes scale and add.
#include <algorithm>

#include "core/outputs.h"
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/joint.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/matvec_work.h"
#include "gpu/kernels/q8_rows.h"

namespace sluice::gpu {
namespace {

// acc + the part of one block of activations.
template <class F>
SLUICE_DEVICE float add_scaled(const ScaleMin& weight, const Q8Scale& x, int32_t dot, float acc) {
  const auto value = static_cast<float>(dot);
  const float product = F::has_min ? fmaf(weight.scale, value, weight.min * x.sum) : weight.scale * value;
  return fmaf(x.scale, product, acc);
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

// --- one token ---

template <class V>
struct OneProduct {
  using F = typename V::F;
  static_assert(V::M == 1);
  const std::byte* x;
  const Q8Scale* x_scales;
  uint32_t g = lane() / 4, t = lane() % 4;
  float acc[2] = {};    // rows g and g + 8, blocks 2t and 2t + 1
  float other[2] = {};  // the same of the other turn, where there are two
  uint32_t words[2] = {};
  Q8Scale scale[2] = {};

  SLUICE_DEVICE_MEMBER OneProduct(const ProductGroup& group, WarpMemory<V>& /*memory*/)
      : x(group.x), x_scales(reinterpret_cast<const Q8Scale*>(group.x + group.layout.scales)) {}

  SLUICE_DEVICE_MEMBER void begin() { acc[0] = acc[1] = other[0] = other[1] = 0.0f; }

  SLUICE_DEVICE_MEMBER void turn() {
    if constexpr (V::turns > 1) {
      SLUICE_UNROLL
      for (uint32_t i = 0; i < 2; ++i) {
        const float first = acc[i];
        acc[i] = other[i];
        other[i] = first;
      }
    }
  }

  SLUICE_DEVICE_MEMBER void prepare(uint32_t chunk, uint32_t n_subs) {
    const std::byte* at = x + uint64_t{chunk} * chunk_cols + 32 * least(g, n_subs - 1) + 4 * t;
    words[0] = load_word(at);
    words[1] = load_word(at + 16);
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 2; ++i) scale[i] = x_scales[chunk * subs_per_chunk + least(2 * t + i, n_subs - 1)];
  }

  // A lane needs other scales than the others, and makes its own.
  SLUICE_DEVICE_MEMBER void convert(const RowTile& /*tile*/, uint32_t /*chunk*/, const std::byte* /*stage*/) {}

  SLUICE_DEVICE_MEMBER void add(const RowTile& tile, uint32_t chunk, const std::byte* stage, uint32_t n_subs) {
    add_rows(row_of<V>(tile, chunk, stage, 0, g), row_of<V>(tile, chunk, stage, 0, g + 8),
             row_of<V>(tile, chunk, stage, 0, lane() % 16), n_subs);
  }

  template <uint32_t unit>
  SLUICE_DEVICE_MEMBER void add_span(uint32_t chunk, const std::byte* stage, uint32_t n_subs) {
    const auto row = [&](uint32_t i) { return spanned_row<F, unit>(chunk, stage, i); };
    if (n_subs >= subs_per_chunk) add_rows(row(g), row(g + 8), row(lane() % 16), subs_per_chunk);
    else add_rows(row(g), row(g + 8), row(lane() % 16), n_subs);
  }

  // Of this lane's two rows, the packed values of blocks from s on. `own`: row lane() % 16, for matrices of whole rows.
  template <class Row>
  SLUICE_DEVICE_MEMBER void load_both(const Row& upper, const Row& lower, const Row& own, uint32_t s, Packed<F>& a,
                                      Packed<F>& b) const {
    if constexpr (F::bytes == Q4_K::bytes && Row::begins_at == 16) {
      uint32_t both[4];  // the first 16 bytes of the upper row and of the lower one, the next of both
      ldmatrix_x4(both, own.base + 16 + 16 * s + lane() / 16 * 16);
      SLUICE_UNROLL
      for (uint32_t half = 0; half < 2; ++half) {
        split_nibbles(both[2 * half], half, a);
        split_nibbles(both[2 * half + 1], half, b);
      }
    } else {
      a = load_packed(F{}, upper, s, t);
      b = load_packed(F{}, lower, s, t);
    }
  }

  template <class Row>
  SLUICE_DEVICE_MEMBER void add_rows(const Row& upper, const Row& lower, const Row& own, uint32_t n_subs) {
    constexpr uint32_t n_dots = F::bytes == Q6_K::bytes ? 4 : 2;
    Dots<F> dots[n_dots] = {};  // of blocks in turn, so that products wait less for each other
    SLUICE_UNROLL
    for (uint32_t s = 0; s < subs_per_chunk; s += subs_at_once<F>) {
      if (s >= n_subs) break;
      Packed<F> a, b;
      load_both(upper, lower, own, s, a, b);
      SLUICE_UNROLL
      for (uint32_t i = 0; i < subs_at_once<F>; ++i) {
        const uint32_t mine[2] = {g == s + i ? words[0] : 0, g == s + i ? words[1] : 0};
        add_dots<F>(a.q[i], b.q[i], mine, dots[(s + i) % n_dots]);
      }
    }
    constexpr uint32_t per_sub = scales_per_sub<F>;
    ScaleMin weight[2][2 * per_sub];
    load_scales<2 * per_sub>(F{}, upper, 2 * per_sub * t, weight[0]);
    load_scales<2 * per_sub>(F{}, lower, 2 * per_sub * t, weight[1]);
    SLUICE_UNROLL
    for (uint32_t e = 0; e < 4; ++e) SLUICE_UNROLL
    for (uint32_t k = 0; k < per_sub; ++k) {
      int32_t dot = dots[0][k][e];
      SLUICE_UNROLL
      for (uint32_t i = 1; i < n_dots; ++i) dot += dots[i][k][e];
      const float sum = add_scaled<F>(weight[e / 2][e % 2 * per_sub + k], scale[e % 2], dot, acc[e / 2]);
      acc[e / 2] = 2 * t + e % 2 < n_subs ? sum : acc[e / 2];
    }
  }

  SLUICE_DEVICE_MEMBER void finish(float* partial) {
    SLUICE_UNROLL
    for (uint32_t turn_of = 0; turn_of < V::turns; ++turn_of) {
      SLUICE_UNROLL
      for (uint32_t h = 0; h < 2; ++h) {
        acc[h] += shuffle_xor(acc[h], 1);
        acc[h] += shuffle_xor(acc[h], 2);
        if (t == 0) partial[turn_of * V::warps * V::rows + g + 8 * h] = acc[h];
      }
      turn();
    }
  }
};

template <class V>
SLUICE_KERNEL_BOUNDED(32 * V::warps, V::most_blocks)
void matvec_one_kernel(SLUICE_CONSTANT ProductGroup group) {
  SLUICE_DYNAMIC_SHARED(BlockMemory<V>, memory);
  OneProduct<V> product(group, memory->warp[warp()]);
  if constexpr (V::by_rows) work_through_rows<V>(group, *memory, product);
  else work_through<V>(group, *memory, product);
}

// --- 2 to 16 tokens ---

template <class V>
struct Products {
  using F = typename V::F;
  static constexpr uint32_t N = V::N, M = V::M;
  const std::byte* x[N];          // of token 8n + g
  const Q8Scale* x_scales[N][2];  // of tokens 8n + 2t and one more
  WarpMemory<V>& memory;
  uint32_t g = lane() / 4, t = lane() % 4;
  float acc[M][N][4][4] = {};  // rows and tokens as in a fragment, blocks 2j and 2j + 1
  uint32_t words[subs_per_chunk][2] = {};
  Q8Scale scale[subs_per_chunk][2] = {};

  SLUICE_DEVICE_MEMBER Products(const ProductGroup& group, WarpMemory<V>& warp_memory) : memory(warp_memory) {
    SLUICE_UNROLL
    for (uint32_t n = 0; n < N; ++n) {
      x[n] = group.x + least(8 * n + g, group.n_tokens - 1) * group.layout.row_bytes + 4 * t;
      SLUICE_UNROLL
      for (uint32_t i = 0; i < 2; ++i)
        x_scales[n][i] = reinterpret_cast<const Q8Scale*>(
            group.x + least(8 * n + 2 * t + i, group.n_tokens - 1) * group.layout.row_bytes + group.layout.scales);
    }
  }

  SLUICE_DEVICE_MEMBER void begin() {
    SLUICE_UNROLL
    for (uint32_t i = 0; i < M * N * 16; ++i) acc[i / 16 / N][i / 16 % N][i / 4 % 4][i % 4] = 0.0f;
  }

  SLUICE_DEVICE_MEMBER void load_x(uint32_t n, uint32_t chunk, uint32_t sub, uint32_t (&word)[2],
                                   Q8Scale (&token_scale)[2]) const {
    const uint32_t block = chunk * subs_per_chunk + sub;
    word[0] = load_word(x[n] + 32 * block);
    word[1] = load_word(x[n] + 32 * block + 16);
    SLUICE_UNROLL
    for (uint32_t i = 0; i < 2; ++i) token_scale[i] = x_scales[n][i][block];
  }

  // All activations of the chunk while its weights may still be under way; those of 16 tokens are too many.
  SLUICE_DEVICE_MEMBER void prepare(uint32_t chunk, uint32_t n_subs) {
    if constexpr (N == 1) {
      SLUICE_UNROLL
      for (uint32_t s = 0; s < subs_per_chunk; ++s) load_x(0, chunk, least(s, n_subs - 1), words[s], scale[s]);
    }
  }

  SLUICE_DEVICE_MEMBER void convert(const RowTile& tile, uint32_t chunk, const std::byte* stage) {
    convert_scales<V>(tile, chunk, stage, memory);
    warp_barrier();
  }

  SLUICE_DEVICE_MEMBER void add(const RowTile& tile, uint32_t chunk, const std::byte* stage, uint32_t n_subs) {
    SLUICE_UNROLL
    for (uint32_t first = 0; first < subs_per_chunk; first += subs_at_once<F>) {
      if (first >= n_subs) break;
      SLUICE_UNROLL
      for (uint32_t m = 0; m < M; ++m) {
        const Packed<F> a = load_packed(F{}, row_of<V>(tile, chunk, stage, m, g), first, t);
        const Packed<F> b = load_packed(F{}, row_of<V>(tile, chunk, stage, m, g + 8), first, t);
        SLUICE_UNROLL
        for (uint32_t i = 0; i < subs_at_once<F>; ++i) SLUICE_UNROLL
        for (uint32_t n = 0; n < N; ++n) add_block(m, n, chunk, first + i, a.q[i], b.q[i]);
      }
    }
  }

  SLUICE_DEVICE_MEMBER void add_block(uint32_t m, uint32_t n, uint32_t chunk, uint32_t s, const int32_t (&upper)[2],
                                      const int32_t (&lower)[2]) {
    if constexpr (N > 1) load_x(n, chunk, s, words[s], scale[s]);
    Dots<F> dots = {};
    add_dots<F>(upper, lower, words[s], dots);
    SLUICE_UNROLL
    for (uint32_t e = 0; e < 4; ++e) SLUICE_UNROLL
    for (uint32_t k = 0; k < scales_per_sub<F>; ++k)
      acc[m][n][e][s / 2] = add_scaled<F>(memory.scales[m][s * scales_per_sub<F> + k][g + e / 2 * 8], scale[s][e % 2],
                                          dots[k][e], acc[m][n][e][s / 2]);
  }

  SLUICE_DEVICE_MEMBER void turn() {}

  SLUICE_DEVICE_MEMBER void finish(float* partial) {
    SLUICE_UNROLL
    for (uint32_t m = 0; m < M; ++m) SLUICE_UNROLL
    for (uint32_t n = 0; n < N; ++n) SLUICE_UNROLL
    for (uint32_t e = 0; e < 4; ++e) {
      const float(&four)[4] = acc[m][n][e];
      partial[(8 * n + 2 * t + e % 2) * V::rows + m * stage_rows + g + e / 2 * 8] =
          (four[0] + four[1]) + (four[2] + four[3]);
    }
  }
};

template <class V>
SLUICE_KERNEL_BOUNDED(32 * V::warps, V::most_blocks)
void matvec_q8_kernel(SLUICE_CONSTANT ProductGroup group) {
  SLUICE_DYNAMIC_SHARED(BlockMemory<V>, memory);
  Products<V> products(group, memory->warp[warp()]);
  work_through<V>(group, *memory, products);
}

// --- host ---

template <class V>
ProductGroup group_of(std::span<const MatmulCall> calls) {
  const MatmulCall& first = calls.front();
  ProductGroup group{
      {}, {}, first.x, q8_layout(first.cols), row_bytes(first.dtype, first.cols), first.cols, first.n_tokens, 0};
  for (uint32_t i = 0; i < most_joint; ++i) {
    group.first_tiles[i] = i < calls.size() ? group.n_tiles : UINT32_MAX;
    if (i >= calls.size()) continue;
    const MatmulCall& call = calls[i];
    group.parts[i] = {call.weights, {call.out, call.bias, call.out_stride, call.accumulate}, call.rows, group.n_tiles};
    group.n_tiles += blocks_for(call.rows, V::rows);
  }
  return group;
}

// So much shared memory that an SM takes no more blocks than fall to each: those that begin while a kernel before still
// runs would else crowd where it has left, and in the end all wait for the SMs that have one more.
uint32_t evened_out(uint32_t shared_bytes, uint32_t n_blocks, const KernelContext& context) {
  const uint32_t share = context.sm_shared_bytes / blocks_for(n_blocks, context.n_sms);
  if (share <= shared_bytes + reserved_of_block) return shared_bytes;
  return std::max(shared_bytes, std::min((share - reserved_of_block) / 128 * 128, most_shared));
}

template <class V>
Status start(cudaStream_t stream, std::span<const MatmulCall> calls, const KernelContext& context) {
  static_assert(sizeof(BlockMemory<V>) <= most_shared);
  constexpr uint32_t room = shared_of_sm / (sizeof(BlockMemory<V>) + reserved_of_block);
  constexpr uint32_t resident = V::by_rows && V::most_blocks < room ? V::most_blocks : room;
  const ProductGroup group = group_of<V>(calls);
  const uint32_t n_blocks = std::min(group.n_tiles, resident * context.n_sms);
  const LaunchShape shape{.grid_x = n_blocks,
                          .block_x = 32 * V::warps,
                          .shared_bytes = evened_out(sizeof(BlockMemory<V>), n_blocks, context),
                          .early = true};
  const auto kernel = [] {
    if constexpr (V::N == 0) return matvec_one_kernel<V>;
    else return matvec_q8_kernel<V>;
  }();
  return launch(stream, joint_info("matvec_q8", calls), shape, kernel, group);
}

// Tiles of 32 rows halve what activations cost; formats of many bits need them less and have no room for them.
template <class F, class Way>
Status start_of(cudaStream_t stream, std::span<const MatmulCall> calls, const KernelContext& context) {
  constexpr uint32_t wide = ChunkOf<F, true>::bytes < 200 ? 2 : 1;
  const uint32_t n_tokens = calls.front().n_tokens;
  if constexpr (has_long_rows<F>)
    if (calls.front().cols > long_row) {
      if (n_tokens > 8) return start<Variant<F, Way, 2, 1, 8>>(stream, calls, context);
      return start<Variant<F, Way, 1, 1, 8>>(stream, calls, context);
    }
  if (n_tokens > 8) return start<Variant<F, Way, 2, 1, 4>>(stream, calls, context);
  uint64_t rows = 0;
  for (const MatmulCall& call : calls) rows += call.rows;
  if (rows < 2 * stage_rows * context.n_sms) return start<Variant<F, Way, 1, 1, 4>>(stream, calls, context);
  return start<Variant<F, Way, 1, wide, 4>>(stream, calls, context);
}

template <class F, class Way>
Status start_one(cudaStream_t stream, std::span<const MatmulCall> calls, const KernelContext& context) {
  if constexpr (std::is_same_v<Way, ByRows>) {
    uint64_t rows = 0;
    for (const MatmulCall& call : calls) rows += call.rows;
    if (calls.front().cols > long_row || rows < many_rows)
      return start<Variant<F, Way, 0, 1, 8>>(stream, calls, context);
  } else if constexpr (has_long_rows<F>) {
    if (calls.front().cols > long_row) return start<Variant<F, Way, 0, 1, 8>>(stream, calls, context);
  }
  return start<Variant<F, Way, 0, 1, 4>>(stream, calls, context);
}

bool begins_aligned(const MatmulCall& call) {
  return multiple_of_16(call.weights) && row_bytes(call.dtype, call.cols) % 16 == 0;
}

}  // namespace

bool joins(const MatmulCall& product, const MatmulCall& next) {
  const auto decodes = [](const MatmulCall& call) {
    return call.x_format == ActFormat::q8 && !call.prompt && call.n_tokens > 0 && call.n_tokens <= decode_tokens &&
           call.rows > 0;
  };
  return decodes(product) && decodes(next) && next.x == product.x && next.dtype == product.dtype &&
         next.cols == product.cols && next.n_tokens == product.n_tokens && outputs_apart(product, next);
}

Status matvec_q8(cudaStream_t stream, std::span<const MatmulCall> calls, const KernelContext& context) {
  const bool aligned = std::all_of(calls.begin(), calls.end(), begins_aligned);
  return with_quantized("matvec", calls.front().dtype, [&]<class F>(F) {
    const bool one = calls.front().n_tokens == 1;
    if (one && aligned && context.transfers) return start_one<F, ByRows>(stream, calls, context);
    // Chunks that are no multiple of 16 begin at other places in turn.
    using ByAligned = std::conditional_t<ChunkOf<F, true>::bytes % 16 == 0, ByAlignedPieces, ByPieces>;
    if (one && aligned) return start_one<F, ByAligned>(stream, calls, context);
    if (one) return start_one<F, ByPieces>(stream, calls, context);
    if (aligned) return start_of<F, ByAligned>(stream, calls, context);
    return start_of<F, ByPieces>(stream, calls, context);
  });
}

}  // namespace sluice::gpu
