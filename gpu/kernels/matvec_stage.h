// Weights on their way through shared memory: a warp brings 16 rows of 256 columns (a chunk) there by asynchronous
// copies of 16 bytes, some chunks ahead, and reads them back as words. Where rows begin and end at multiples of 16 and
// the card can, a block brings its rows of eight chunks (a span) by one copy each instead: copies of 16 bytes reach no
// more than 2.7 TB/s on an H200, of rows 3.7 to 4.4.
//
// Rows begin at any 2 bytes, copies at a multiple of 16: a row of a chunk is copied from the multiple below its first
// byte on, and read from where it lies then. Copies end with the row of the matrix, but they may begin up to 14 bytes
// before the matrix.
#pragma once

#include "gpu/kernels/formats.h"
#include "gpu/kernels/product.h"

namespace sluice::gpu {

constexpr uint32_t stage_rows = 16, chunk_cols = 256, subs_per_chunk = chunk_cols / 32;

// aligned: all rows, and with them all chunks, begin at multiples of 16.
template <class F, bool aligned>
struct ChunkOf {
  static constexpr uint32_t bytes = chunk_cols / F::values * F::bytes;                      // of a row
  static constexpr uint32_t pieces = aligned ? (bytes + 15) / 16 : (bytes + 14 + 15) / 16;  // that cover it
  static constexpr uint32_t pitch = (pieces | 1) * 16;  // eight rows begin in different banks
  static constexpr uint32_t stage_bytes = stage_rows * pitch;
};

// Of rows that are copied whole; every span begins at a multiple of 16.
constexpr uint32_t span_chunks = 8;
template <class F>
struct SpanOf {
  static constexpr uint32_t bytes = span_chunks * (chunk_cols / F::values * F::bytes);  // of a row
  static constexpr uint32_t pitch = (bytes / 16 | 1) * 16;                              // as ChunkOf's
  static_assert(bytes % 16 == 0);
};

// Where a warp's weights are.
struct RowTile {
  const std::byte* weights;
  uint64_t row_bytes;
  uint32_t first_row, last_row;  // the last of the matrix: what lies beyond it is a copy of it
};

SLUICE_DEVICE const std::byte* tile_row(const RowTile& tile, uint32_t row) {
  return tile.weights + least(tile.first_row + row, tile.last_row) * tile.row_bytes;
}

// Four lanes copy a row of a chunk, and of each 64 bytes of memory that it lies in a piece each, so that what one
// instruction reads are whole sectors of the L2. This is where the lane's first piece lies from the chunk's first on:
// before it by up to three pieces, which are not copied. `first`: the chunk's first byte in the row.
SLUICE_DEVICE int32_t place_of_lane(const std::byte* first) {
  return (static_cast<int32_t>(lane() % 4) - static_cast<int32_t>(reinterpret_cast<uintptr_t>(first) / 16 % 4)) * 16;
}

// The first `bytes` (an even number below 16) of a piece, where the row ends.
SLUICE_DEVICE void copy_halves(std::byte* to, const std::byte* from, uint32_t bytes) {
  for (uint32_t i = 0; i < bytes; i += 2)
    *reinterpret_cast<uint16_t*>(to + i) = *reinterpret_cast<const uint16_t*>(from + i);
}

// Copies the lane's part of a row: `rest` bytes from `first` on, but a chunk at most. `to` is `stage` plus `offset`;
// none of these has `place` in it.
template <class F, bool aligned>
SLUICE_DEVICE void stage_row(const std::byte* first, uint32_t rest, int32_t place, SharedPlace to, std::byte* stage,
                             uint32_t offset) {
  using C = ChunkOf<F, aligned>;
  const uint32_t before = aligned ? 0 : reinterpret_cast<uintptr_t>(first) % 16;
  const uint32_t end = before + rest, needed = least(end, before + C::bytes);
  SLUICE_UNROLL
  for (uint32_t c = 0; c < C::pieces + 3; c += 4) {
    const auto at = static_cast<uint32_t>(place) + c * 16;  // huge where the chunk has not begun
    const std::byte* from = first - before + place + c * 16;
    if (at >= needed) continue;
    if (aligned || end - at >= 16) async_copy16_to(to + place + c * 16, from);
    else copy_halves(stage + offset + at, from, end - at);
  }
}

// A row of a chunk in shared memory, which is known when compiling to begin there at a multiple of `unit`: 2, 4 or 16.
template <uint32_t unit>
struct StagedRow {
  static constexpr uint32_t begins_at = unit;
  const std::byte* base;  // a multiple of 4, or of 16
  uint32_t odd;           // 2 where the row begins 2 bytes behind `base`, else 0

  // The word at `offset` + `extra`, `offset` even and known when compiling, `extra` a multiple of 4.
  SLUICE_DEVICE_MEMBER uint32_t word(uint32_t offset, uint32_t extra = 0) const {
    if (unit >= 4 && offset % 4 == 0) return *reinterpret_cast<const uint32_t*>(base + offset + extra);
    const uint32_t begin = unit >= 4 ? offset : offset + odd;
    const std::byte* at = base + extra + begin / 4 * 4;
    return funnel_right(*reinterpret_cast<const uint32_t*>(at), *reinterpret_cast<const uint32_t*>(at + 4),
                        begin % 4 * 8);
  }
  // The first four words.
  SLUICE_DEVICE_MEMBER Vec16 head() const {
    if (unit == 16) return load16(base);
    return {{word(0), word(4), word(8), word(12)}};
  }
  SLUICE_DEVICE_MEMBER uint32_t half(uint32_t offset) const {
    return *reinterpret_cast<const uint16_t*>(base + odd + offset);
  }
  SLUICE_DEVICE_MEMBER uint32_t byte(uint32_t offset) const { return static_cast<uint32_t>(base[odd + offset]); }
};

// Row `row` of the 16 in `stage`, which is `row_of_tile` in the tile.
template <class F, bool aligned>
SLUICE_DEVICE StagedRow<aligned ? 16 : 2> staged_row(const RowTile& tile, uint32_t row_of_tile, uint32_t chunk,
                                                     const std::byte* stage, uint32_t row) {
  using C = ChunkOf<F, aligned>;
  if constexpr (aligned) return {stage + row * C::pitch, 0};
  const uintptr_t from = reinterpret_cast<uintptr_t>(tile_row(tile, row_of_tile)) + uint64_t{chunk} * C::bytes;
  const auto before = static_cast<uint32_t>(from % 16);
  return {stage + row * C::pitch + before / 4 * 4, before % 4};
}

// Of a span, row `row` of those in `stage`, from `chunk` on, where a chunk begins at a multiple of `unit`.
template <class F, uint32_t unit>
SLUICE_DEVICE StagedRow<unit> spanned_row(uint32_t chunk, const std::byte* stage, uint32_t row) {
  const uint32_t before = chunk % span_chunks * (SpanOf<F>::bytes / span_chunks);
  return {stage + row * SpanOf<F>::pitch + before / 4 * 4, before % 4};
}

// --- what a lane multiplies: of each block of 32 values 4t..4t+3 and 16+4t..16+4t+3, t its place among four lanes ---

template <class F>
constexpr uint32_t subs_at_once = 1;  // blocks of 32 whose packed bytes overlap
template <>
constexpr uint32_t subs_at_once<Q4_K> = 2;
template <>
constexpr uint32_t subs_at_once<Q6_K> = 4;

template <class F>
struct Packed {
  int32_t q[subs_at_once<F>][2];
};

// What precedes the nibbles of a block.
template <class F>
constexpr uint32_t nibbles_at = F::has_min ? 4 : 2;
template <>
constexpr uint32_t nibbles_at<Q5_0> = 6;
template <>
constexpr uint32_t nibbles_at<Q5_1> = 8;

// Blocks sub..sub + subs_at_once - 1.
template <class F, class Row>
SLUICE_DEVICE Packed<F> load_packed(F, const Row& row, uint32_t sub, uint32_t t) {
  const uint32_t word = row.word(sub * F::bytes + nibbles_at<F>, 4 * t);
  uint32_t low = low_nibbles(word, 0), high = low_nibbles(word, 4);
  if constexpr (F::bytes == Q5_0::bytes || F::bytes == Q5_1::bytes) {
    const uint32_t fifths = row.word(sub * F::bytes + nibbles_at<F> - 4);
    low |= fifth_bits(fifths >> (4 * t));
    high |= fifth_bits(fifths >> (16 + 4 * t));
  }
  if constexpr (F::has_min) return {{{static_cast<int32_t>(low), static_cast<int32_t>(high)}}};
  constexpr uint32_t offset = F::bytes == Q5_0::bytes ? 16 : 8;
  return {{{subtract_bytes(low, offset), subtract_bytes(high, offset)}}};
}

template <class Row>
SLUICE_DEVICE Packed<Q8_0> load_packed(Q8_0, const Row& row, uint32_t sub, uint32_t t) {
  return {{{static_cast<int32_t>(row.word(sub * Q8_0::bytes + 2, 4 * t)),
            static_cast<int32_t>(row.word(sub * Q8_0::bytes + 18, 4 * t))}}};
}

SLUICE_DEVICE void split_nibbles(uint32_t word, uint32_t half, Packed<Q4_K>& packed) {
  packed.q[0][half] = static_cast<int32_t>(low_nibbles(word, 0));
  packed.q[1][half] = static_cast<int32_t>(low_nibbles(word, 4));
}

template <class Row>
SLUICE_DEVICE Packed<Q4_K> load_packed(Q4_K, const Row& row, uint32_t sub, uint32_t t) {
  Packed<Q4_K> packed;
  SLUICE_UNROLL
  for (uint32_t half = 0; half < 2; ++half) split_nibbles(row.word(16 + 16 * sub + 16 * half, 4 * t), half, packed);
  return packed;
}

template <class Row>
SLUICE_DEVICE Packed<Q6_K> load_packed(Q6_K, const Row& row, uint32_t sub, uint32_t t) {
  Packed<Q6_K> packed;
  SLUICE_UNROLL
  for (uint32_t half = 0; half < 2; ++half) {
    const uint32_t high = row.word(128 + 8 * sub + 16 * half, 4 * t);
    const uint32_t low[2] = {row.word(16 * sub + 16 * half, 4 * t), row.word(16 * sub + 32 + 16 * half, 4 * t)};
    SLUICE_UNROLL
    for (uint32_t part = 0; part < 4; ++part) packed.q[part][half] = q6_k_word(low[part % 2], high, part);
  }
  return packed;
}

// --- scales, as floats ---

struct alignas(8) ScaleMin {
  float scale, min;
};

template <class F>
constexpr uint32_t scales_per_sub = 1;
template <>
constexpr uint32_t scales_per_sub<Q6_K> = 2;

// Scales first..first + n - 1 of a row, in their order; n is a power of two that divides `first`.
template <uint32_t n, class F, class Row>
SLUICE_DEVICE void load_scales(F, const Row& row, uint32_t first, ScaleMin (&out)[n]) {
  SLUICE_UNROLL
  for (uint32_t i = 0; i < n; ++i) {
    const uint32_t at = (first + i) * F::bytes;
    out[i].scale = half_bits_to_float(static_cast<uint16_t>(row.half(at)));
    out[i].min = F::has_min ? half_bits_to_float(static_cast<uint16_t>(row.half(at + 2))) : 0.0f;
  }
}

// Byte i of a word, times `factor`, `more` being -2^23 * factor: exact for scales, which are halves, and bytes
// below 64.
SLUICE_DEVICE float times_byte(float factor, float more, uint32_t word, uint32_t i) {
  return fmaf(factor, __builtin_bit_cast(float, 0x4b000000u | (word >> (8 * i) & 255)), more);  // 2^23 and the byte
}

template <uint32_t n, class Row>
SLUICE_DEVICE void load_scales(Q4_K, const Row& row, uint32_t first, ScaleMin (&out)[n]) {
  const Vec16 head = row.head();
  const uint32_t halves = head.words[0], low = head.words[1], middle = head.words[2], high = head.words[3];
  const float d = half_bits_to_float(static_cast<uint16_t>(halves));
  const float min = half_bits_to_float(static_cast<uint16_t>(halves >> 16));
  const bool upper = first >= 4;
  const uint32_t scales = upper ? (high & 0x0f0f0f0fu) | (low >> 2 & 0x30303030u) : low & 0x3f3f3f3fu;
  const uint32_t mins = upper ? (high >> 4 & 0x0f0f0f0fu) | (middle >> 2 & 0x30303030u) : middle & 0x3f3f3f3fu;
  const uint32_t shift = 8 * (first % 4);
  const float more = d * -0x1p23f, more_min = min * 0x1p23f;
  SLUICE_UNROLL
  for (uint32_t i = 0; i < n; ++i)
    out[i] = {times_byte(d, more, scales >> shift, i), times_byte(-min, more_min, mins >> shift, i)};
}

template <uint32_t n, class Row>
SLUICE_DEVICE void load_scales(Q6_K, const Row& row, uint32_t first, ScaleMin (&out)[n]) {
  const float d = half_bits_to_float(static_cast<uint16_t>(row.half(208)));
  SLUICE_UNROLL
  for (uint32_t i = 0; i < n; ++i)
    out[i] = {d * static_cast<float>(static_cast<int8_t>(row.byte(192 + first + i))), 0.0f};
}

}  // namespace sluice::gpu
