#include "tests/standin/grid.h"

// Fragments as PTX's mma.sync and ldmatrix lay them out: lane l has row l / 4 (and that plus 8) and the columns that
// l % 4 counts.
namespace standin {
namespace {

float bf16(uint32_t word, uint32_t half) {
  return __builtin_bit_cast(float, (half == 0 ? word << 16 : word & 0xFFFF0000u));
}
float f16(uint32_t word, uint32_t half) {
  const uint32_t bits = word >> (16 * half) & 0xFFFF, exponent = bits >> 10 & 31, fraction = bits & 1023;
  const uint32_t sign = bits >> 15 << 31;
  if (exponent == 31) return __builtin_bit_cast(float, sign | 0x7F800000u | fraction << 13);
  if (exponent == 0) return (sign == 0 ? 0x1p-24f : -0x1p-24f) * static_cast<float>(fraction);
  return __builtin_bit_cast(float, sign | (exponent + 112) << 23 | fraction << 13);
}
int32_t s8(uint32_t word, uint32_t byte) { return static_cast<int8_t>(word >> (8 * byte)); }

// Words 0..3 of a lane are d, 4..7 a, 8..9 b.
void put(Exchange& exchange, const void* d, const uint32_t a[4], const uint32_t b[2]) {
  uint32_t* in = exchange.in[current_thread->lane];
  __builtin_memcpy(in, d, 16);
  __builtin_memcpy(in + 4, a, 16);
  __builtin_memcpy(in + 8, b, 8);
}
void take(void* d, const Exchange& exchange) { __builtin_memcpy(d, exchange.out[current_thread->lane], 16); }

// d[row][column] += the products that `product(word of a, word of b)` sums, over both halves of k and both rows.
template <class T, class Product>
void multiply(Exchange& exchange, Product product) {
  for (uint32_t lane = 0; lane < 32; ++lane) {
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t row = lane / 4, column = lane % 4 * 2 + i % 2;
      T sum;
      __builtin_memcpy(&sum, &exchange.in[lane][i], 4);
      for (uint32_t k = 0; k < 8; ++k) {  // a word of A: register i / 2 + 2 * (k / 4) of lane row * 4 + k % 4
        sum = product(sum, exchange.in[row * 4 + k % 4][4 + i / 2 + 2 * (k / 4)],
                      exchange.in[column * 4 + k % 4][8 + k / 4]);
      }
      __builtin_memcpy(&exchange.out[lane][i], &sum, 4);
    }
  }
}

void complete_bf16(Exchange& exchange) {
  multiply<float>(exchange, [](float sum, uint32_t a, uint32_t b) {
    return sum + bf16(a, 0) * bf16(b, 0) + bf16(a, 1) * bf16(b, 1);
  });
}
void complete_f16(Exchange& exchange) {
  multiply<float>(
      exchange, [](float sum, uint32_t a, uint32_t b) { return sum + f16(a, 0) * f16(b, 0) + f16(a, 1) * f16(b, 1); });
}
void complete_s8(Exchange& exchange) {
  multiply<int32_t>(exchange, [](int32_t sum, uint32_t a, uint32_t b) {
    for (uint32_t i = 0; i < 4; ++i) sum += s8(a, i) * s8(b, i);
    return sum;
  });
}

}  // namespace

void block_barrier(Site site) { Grid::running().meet_block(site); }
void warp_barrier(Site site) { Grid::running().meet_warp(site); }

uint32_t shuffle(uint32_t value, uint32_t source, Site site) {
  Grid& grid = Grid::running();
  Exchange& exchange = grid.exchange();
  const uint32_t lane = current_thread->lane;
  exchange.in[lane][0] = value;
  exchange.in[lane][1] = source;
  grid.collect(Meeting::shuffle, site, [](Exchange& all) {
    for (uint32_t i = 0; i < 32; ++i) all.out[i][0] = all.in[all.in[i][1]][0];
  });
  return exchange.out[lane][0];
}

uint32_t ballot(bool vote, Site site) {
  Grid& grid = Grid::running();
  Exchange& exchange = grid.exchange();
  const uint32_t lane = current_thread->lane;
  exchange.in[lane][0] = vote ? 1 : 0;
  grid.collect(Meeting::ballot, site, [](Exchange& all) {
    uint32_t bits = 0;
    for (uint32_t i = 0; i < 32; ++i) bits |= all.in[i][0] << i;
    for (uint32_t i = 0; i < 32; ++i) all.out[i][0] = bits;
  });
  return exchange.out[lane][0];
}

void distribute_rows(uint32_t result[4], const Row16& row, Site site) {
  Grid& grid = Grid::running();
  Exchange& exchange = grid.exchange();
  __builtin_memcpy(exchange.in[current_thread->lane], row.words, 16);
  grid.collect(Meeting::ldmatrix, site, [](Exchange& all) {
    for (uint32_t i = 0; i < 32; ++i) {
      for (uint32_t k = 0; k < 4; ++k) all.out[i][k] = all.in[8 * k + i / 4][i % 4];
    }
  });
  take(result, exchange);
}

void distribute_columns(uint32_t result[4], const Row16& row, Site site) {
  Grid& grid = Grid::running();
  Exchange& exchange = grid.exchange();
  __builtin_memcpy(exchange.in[current_thread->lane], row.words, 16);
  grid.collect(Meeting::ldmatrix, site, [](Exchange& all) {
    for (uint32_t i = 0; i < 32; ++i) {
      for (uint32_t k = 0; k < 4; ++k) {  // column i / 4 of rows 2 * (i % 4) and one more
        const uint32_t first = 8 * k + i % 4 * 2, word = i / 8, shift = i / 4 % 2 * 16;
        all.out[i][k] = (all.in[first][word] >> shift & 0xFFFF) | (all.in[first + 1][word] >> shift & 0xFFFF) << 16;
      }
    }
  });
  take(result, exchange);
}

void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2], Site site) {
  Grid& grid = Grid::running();
  Exchange& exchange = grid.exchange();
  put(exchange, d, a, b);
  grid.collect(Meeting::mma_f16, site, complete_f16);
  take(d, exchange);
}

void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2], Site site) {
  Grid& grid = Grid::running();
  Exchange& exchange = grid.exchange();
  put(exchange, d, a, b);
  grid.collect(Meeting::mma_bf16, site, complete_bf16);
  take(d, exchange);
}

void mma_s8(int32_t d[4], const uint32_t a[4], const uint32_t b[2], Site site) {
  Grid& grid = Grid::running();
  Exchange& exchange = grid.exchange();
  put(exchange, d, a, b);
  grid.collect(Meeting::mma_s8, site, complete_s8);
  take(d, exchange);
}

void* shared_array(const void* key, const char* name, size_t bytes, Site site) {
  return Grid::running().shared_array(key, name, bytes, site);
}
void* dynamic_shared(Site site) { return Grid::running().dynamic_shared(site); }

void wait_for_previous() { Grid::running().wait_for_previous(); }

void async_start(const AsyncCopy& copy, Site site) { Grid::running().async_start(copy, site); }
void async_commit() { Grid::running().async_commit(); }
bool async_next(uint32_t pending, AsyncCopy* copy) { return Grid::running().async_next(pending, copy); }

void transfer_init(const void* barrier, uint32_t threads, Site site) {
  Grid::running().transfer_init(barrier, threads, site);
}
void transfer_expect(const void* barrier, uint32_t bytes, Site site) {
  Grid::running().transfer_expect(barrier, bytes, site);
}
void transfer_start(const void* barrier, const RowCopy& copy, Site site) {
  Grid::running().transfer_start(barrier, copy, site);
}
bool transfer_next(const void* barrier, uint32_t parity, RowCopy* copy, Site site) {
  return Grid::running().transfer_next(barrier, parity, copy, site);
}
void transfer_end(const void* barrier, uint32_t parity) { Grid::running().transfer_end(barrier, parity); }

void misaligned(const void* address, size_t bytes, Site site) {
  Grid::running().fail(site, "access of %zu bytes at %p, which is not aligned", bytes, address);
}

}  // namespace standin
