// The host definitions of what gpu/kernels/intrinsics.h promises.
#pragma once

#include <sluice_standin/emulator.h>

#include <cmath>
#include <cstring>

#include "core/dtype.h"

#define SLUICE_KERNEL static
#define SLUICE_KERNEL_BOUNDED(threads, blocks) static
#define SLUICE_CONSTANT const
#define SLUICE_DEVICE [[maybe_unused]] static
#define SLUICE_DEVICE_MEMBER
#define SLUICE_UNROLL

#define SLUICE_HERE \
  ::standin::Site { __FILE__, __LINE__ }
// The key is a variable of its own for each declaration and each instantiation of a template.
#define SLUICE_SHARED(type, name, dims)                         \
  using name##_shared_type = type dims;                         \
  static const char name##_shared_key = 0;                      \
  name##_shared_type& name = *static_cast<name##_shared_type*>( \
      ::standin::shared_array(&name##_shared_key, #name, sizeof(name##_shared_type), SLUICE_HERE))
#define SLUICE_DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(::standin::dynamic_shared(SLUICE_HERE))

// The caller's place in the source, as two defaulted parameters.
#define SLUICE_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define SLUICE_AT_SITE \
  ::standin::Site { file, line }

namespace sluice::gpu {

inline uint32_t thread_x() { return standin::current_thread->x; }
inline uint32_t thread_y() { return standin::current_thread->y; }
inline uint32_t lane() { return standin::current_thread->lane; }
inline uint32_t warp() { return standin::current_thread->warp; }
inline uint32_t block_x() { return standin::current_thread->block->x; }
inline uint32_t block_y() { return standin::current_thread->block->y; }
inline uint32_t block_z() { return standin::current_thread->block->z; }
inline uint32_t block_threads() { return standin::current_thread->block->threads; }
inline uint32_t block_dim_x() { return standin::current_thread->block->dim_x; }
inline uint32_t grid_x() { return standin::current_thread->block->grid_x; }
inline uint32_t grid_y() { return standin::current_thread->block->grid_y; }

inline void block_barrier(SLUICE_SITE) { standin::block_barrier(SLUICE_AT_SITE); }
inline void warp_barrier(SLUICE_SITE) { standin::warp_barrier(SLUICE_AT_SITE); }

// Warp collectives: all 32 lanes, the same call.
inline uint32_t shuffle(uint32_t v, uint32_t source, SLUICE_SITE) {
  return standin::shuffle(v, source % 32, SLUICE_AT_SITE);
}
inline int32_t shuffle(int32_t v, uint32_t source, SLUICE_SITE) {
  return static_cast<int32_t>(shuffle(static_cast<uint32_t>(v), source, file, line));
}
inline float shuffle(float v, uint32_t source, SLUICE_SITE) {
  return __builtin_bit_cast(float, shuffle(__builtin_bit_cast(uint32_t, v), source, file, line));
}
template <class T>
T shuffle_xor(T v, uint32_t mask, SLUICE_SITE) {
  return shuffle(v, lane() ^ mask, file, line);
}
// Lanes past the end keep their own value.
template <class T>
T shuffle_down(T v, uint32_t n, SLUICE_SITE) {
  return shuffle(v, lane() + n < 32 ? lane() + n : lane(), file, line);
}
inline uint32_t ballot(bool vote, SLUICE_SITE) { return standin::ballot(vote, SLUICE_AT_SITE); }
inline bool vote_any(bool vote, SLUICE_SITE) { return ballot(vote, file, line) != 0; }

inline float warp_sum(float v, SLUICE_SITE) {
  for (uint32_t mask = 16; mask > 0; mask /= 2) v += shuffle_xor(v, mask, file, line);
  return v;
}
inline int32_t warp_sum(int32_t v, SLUICE_SITE) {
  for (uint32_t mask = 16; mask > 0; mask /= 2) v += shuffle_xor(v, mask, file, line);
  return v;
}
inline float warp_max(float v, SLUICE_SITE) {
  for (uint32_t mask = 16; mask > 0; mask /= 2) v = fmaxf(v, shuffle_xor(v, mask, file, line));
  return v;
}

// c + the four products of bytes.
inline int32_t dp4a_ss(int32_t a, int32_t b, int32_t c) {
  for (int i = 0; i < 32; i += 8) c += static_cast<int8_t>(a >> i) * static_cast<int8_t>(b >> i);
  return c;
}
inline int32_t dp4a_us(uint32_t a, int32_t b, int32_t c) {
  for (int i = 0; i < 32; i += 8) c += static_cast<uint8_t>(a >> i) * static_cast<int8_t>(b >> i);
  return c;
}
inline int32_t dot4(int32_t a, int32_t b, int32_t c) { return dp4a_ss(a, b, c); }
inline int32_t dot4(uint32_t a, int32_t b, int32_t c) { return dp4a_us(a, b, c); }

inline void let_next_begin() {}
inline void wait_for_previous() { ::standin::wait_for_previous(); }
inline void take_turn() { wait_for_previous(); }

inline float half_bits_to_float(uint16_t bits) { return half_to_float(bits); }
inline uint16_t float_to_half_bits(float value) { return float_to_half(value); }
inline uint32_t floats_to_halves(float first, float second) {
  return float_to_half(first) | static_cast<uint32_t>(float_to_half(second)) << 16;
}
inline float bf16_bits_to_float(uint16_t bits) { return bf16_to_float(bits); }
inline uint16_t float_to_bf16_bits(float value) { return float_to_bf16(value); }

// 16 bytes that move at once; addresses are multiples of 16.
struct alignas(16) Vec16 {
  uint32_t words[4];
};
inline Vec16 load16(const void* from, SLUICE_SITE) {
  if (!standin::aligned(from, 16)) standin::misaligned(from, 16, SLUICE_AT_SITE);
  return *static_cast<const Vec16*>(from);
}
inline Vec16 load_nc16(const void* from, SLUICE_SITE) { return load16(from, file, line); }
inline void store16(void* to, const Vec16& value, SLUICE_SITE) {
  if (!standin::aligned(to, 16)) standin::misaligned(to, 16, SLUICE_AT_SITE);
  *static_cast<Vec16*>(to) = value;
}
// Bits shift..shift+31 of high:low, for shifts below 32.
inline uint32_t funnel_right(uint32_t low, uint32_t high, uint32_t shift) {
  return static_cast<uint32_t>((uint64_t{high} << 32 | low) >> shift);
}
// Four bytes at a multiple of 2.
inline uint32_t load_bytes4(const void* from, SLUICE_SITE) {
  if (!standin::aligned(from, 2)) standin::misaligned(from, 2, SLUICE_AT_SITE);
  const auto* halves = static_cast<const uint16_t*>(from);
  return halves[0] | static_cast<uint32_t>(halves[1]) << 16;
}

// Tensor cores, with the fragments of PTX's mma.sync and ldmatrix.
inline void mma_m16n8k16_bf16(float d[4], const uint32_t a[4], const uint32_t b[2], SLUICE_SITE) {
  standin::mma_bf16(d, a, b, SLUICE_AT_SITE);
}
inline void mma_m16n8k16_f16(float d[4], const uint32_t a[4], const uint32_t b[2], SLUICE_SITE) {
  standin::mma_f16(d, a, b, SLUICE_AT_SITE);
}
inline void mma_m16n8k32_s8(int32_t d[4], const uint32_t a[4], const uint32_t b[2], SLUICE_SITE) {
  standin::mma_s8(d, a, b, SLUICE_AT_SITE);
}
inline void mma_m16n8k16_s8(int32_t d[4], const uint32_t a[2], uint32_t b, SLUICE_SITE) {
  const uint32_t wide_a[4] = {a[0], a[1], 0, 0}, wide_b[2] = {b, 0};
  standin::mma_s8(d, wide_a, wide_b, SLUICE_AT_SITE);
}
inline void ldmatrix_x4(uint32_t r[4], const void* row_address, SLUICE_SITE) {
  const Vec16 row = load16(row_address, file, line);
  standin::distribute_rows(r, {{row.words[0], row.words[1], row.words[2], row.words[3]}}, SLUICE_AT_SITE);
}

inline void ldmatrix_x4_transposed(uint32_t r[4], const void* row_address, SLUICE_SITE) {
  const Vec16 row = load16(row_address, file, line);
  standin::distribute_columns(r, {{row.words[0], row.words[1], row.words[2], row.words[3]}}, SLUICE_AT_SITE);
}

// The copy itself happens at the wait that covers it. Both ends are read at once, for the sanitizers to judge.
using SharedPlace = std::byte*;
inline SharedPlace shared_place(void* shared) { return static_cast<std::byte*>(shared); }
inline void async_copy16_to(SharedPlace shared, const void* global, SLUICE_SITE) {
  for (const void* end : {static_cast<const void*>(shared), global}) {
    if (!standin::aligned(end, 16)) standin::misaligned(end, 16, SLUICE_AT_SITE);
    const auto* words = static_cast<const volatile uint64_t*>(end);
    (void)words[0];
    (void)words[1];
  }
  standin::async_start({shared, global}, SLUICE_AT_SITE);
}
inline void async_copy16(void* shared, const void* global, SLUICE_SITE) {
  async_copy16_to(shared_place(shared), global, file, line);
}
inline void async_commit() { standin::async_commit(); }
// Until at most n of the newest committed groups are under way.
template <int n>
void async_wait() {
  standin::AsyncCopy copy;
  while (standin::async_next(n, &copy)) store16(copy.shared, load16(copy.global));
}

// Rows that come where their use of the barrier is first waited for. Both ends are read at once, for the sanitizers.
struct TransferBarrier {
  uint64_t state;
};
inline void transfer_init(TransferBarrier& barrier, uint32_t threads, SLUICE_SITE) {
  standin::transfer_init(&barrier, threads, SLUICE_AT_SITE);
}
inline void transfer_expect(TransferBarrier& barrier, uint32_t bytes, SLUICE_SITE) {
  standin::transfer_expect(&barrier, bytes, SLUICE_AT_SITE);
}
inline void transfer_row(TransferBarrier& barrier, void* shared, const void* global, uint32_t bytes, SLUICE_SITE) {
  for (const void* end : {static_cast<const void*>(shared), global}) {
    if (!standin::aligned(end, 16)) standin::misaligned(end, 16, SLUICE_AT_SITE);
    const auto* words = static_cast<const volatile uint64_t*>(end);
    for (uint32_t i = 0; i < bytes / 8; ++i) (void)words[i];
  }
  standin::transfer_start(&barrier, {shared, global, bytes}, SLUICE_AT_SITE);
}
inline void transfer_wait(TransferBarrier& barrier, uint32_t parity, SLUICE_SITE) {
  standin::RowCopy copy;
  while (standin::transfer_next(&barrier, parity, &copy, SLUICE_AT_SITE))
    for (uint32_t i = 0; i < copy.bytes; i += 16)
      store16(static_cast<std::byte*>(copy.shared) + i, load16(static_cast<const std::byte*>(copy.global) + i));
  standin::transfer_end(&barrier, parity);
}

// Only in global memory. They order nothing else.
inline uint32_t atomic_add(uint32_t* to, uint32_t value) { return __atomic_fetch_add(to, value, __ATOMIC_RELAXED); }
inline float atomic_add(float* to, float value) {
  auto* bits = reinterpret_cast<uint32_t*>(to);
  uint32_t old = __atomic_load_n(bits, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(bits, &old, __builtin_bit_cast(uint32_t, __builtin_bit_cast(float, old) + value),
                                      true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return __builtin_bit_cast(float, old);
}
inline int32_t atomic_max(int32_t* to, int32_t value) {
  int32_t old = __atomic_load_n(to, __ATOMIC_RELAXED);
  while (old < value && !__atomic_compare_exchange_n(to, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}

inline float fast_exp(float x) { return expf(x); }
inline float fast_exp2(float x) { return exp2f(x); }

}  // namespace sluice::gpu
