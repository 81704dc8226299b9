// Tiles of ActFormat::wide8 on AMX, Intel's matrix units (Intel 64 and IA-32 Architectures Software Developer's Manual,
// volume 1, chapter 18).
//
// A unit's register holds a piece, 16 rows of 64 bytes. Of each block of 256 columns 32 rows by 32 tokens are summed in
// four of the eight registers, with a load for each product, and added to c, scaled, from memory that stays in the
// first cache. A block's pieces are 16 KiB on each side and are read twice. The bits are those of cpu/kernels/wide8.cc:
// the sums are exact, and scaled alike.
#include <immintrin.h>

#include "cpu/isa.h"
#include "cpu/kernels/wide8.h"

namespace sluice::cpu::amx {
namespace {

// What LDTILECFG reads: eight registers of 16 rows of 64 bytes.
struct alignas(64) Registers {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(Registers) == 64);

// The sums of 32 rows by 32 tokens, by pieces.
struct Sums {
  alignas(64) int32_t piece[4][piece_rows * piece_rows];
};

[[gnu::always_inline]] inline void multiply_quarter(const std::byte* a, const std::byte* b, uint32_t steps,
                                                    Sums& sums) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (uint32_t step = 0; step < steps; ++step, a += step_bytes, b += step_bytes) {
    _tile_loadd(4, a, 64);
    _tile_loadd(6, b, 64);
    _tile_dpbssd(0, 4, 6);
    _tile_loadd(7, b + piece_bytes, 64);
    _tile_dpbssd(1, 4, 7);
    _tile_loadd(5, a + piece_bytes, 64);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
  _tile_stored(0, sums.piece[0], 64);
  _tile_stored(1, sums.piece[1], 64);
  _tile_stored(2, sums.piece[2], 64);
  _tile_stored(3, sums.piece[3], 64);
}

// c: of the first row and token.
[[gnu::always_inline]] inline void add_quarter(const Sums& sums, const float* row_scales, const float* token_scales,
                                               bool accumulate, float* c) {
  for (uint32_t piece = 0; piece < 4; ++piece) {
    const uint32_t row = piece / 2 * piece_rows, token = piece % 2 * piece_rows;
    const __m512 tokens = _mm512_loadu_ps(token_scales + token);
    for (uint32_t r = 0; r < piece_rows; ++r) {
      float* at = c + (row + r) * act_group + token;
      const __m512 sum = _mm512_cvtepi32_ps(_mm512_load_si512(sums.piece[piece] + r * piece_rows));
      const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(row_scales[row + r]), tokens);
      _mm512_storeu_ps(at, _mm512_fmadd_ps(sum, scale, accumulate ? _mm512_loadu_ps(at) : _mm512_setzero_ps()));
    }
  }
}

}  // namespace

void multiply_wide8(const TileCall& call) {
  static const Registers registers;
  _tile_loadconfig(&registers);
  Sums sums;
  const std::byte *a = call.a, *b = call.b;
  for (uint32_t col = 0; col < call.cols; col += wide_block) {
    const uint32_t cols = block_cols(call.cols, col), steps = steps_of(cols);
    const float *rows = scales_of(a, steps), *tokens = scales_of(b, steps);
    for (uint32_t quarter = 0; quarter < 4; ++quarter) {  // so that each has one side of the one before
      const uint32_t row = quarter / 2, token = (quarter + 1) / 2 % 2;
      multiply_quarter(a + row * 2 * piece_bytes, b + token * 2 * piece_bytes, steps, sums);
      add_quarter(sums, rows + row * 32, tokens + token * 32, call.accumulate || col > 0,
                  call.c + row * 32 * act_group + token * 32);
    }
    a += wide_block_bytes(cols);
    b += wide_block_bytes(cols);
  }
  _tile_release();
}

}  // namespace sluice::cpu::amx
