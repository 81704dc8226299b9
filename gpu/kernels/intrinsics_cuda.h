// What kernels use beyond plain C++, as CUDA has it. The host's definitions of the same names are in
// tests/standin/include/sluice_standin/intrinsics.h; kernels include gpu/kernels/intrinsics.h, which
// chooses. Warp collectives are for full warps: every lane calls them.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#define SLUICE_KERNEL static __global__
// Of a kernel's parameter: it stays where it was passed, also if it is read by an index.
#define SLUICE_CONSTANT const __grid_constant__
// Of so many threads a block, with registers for so many blocks on an SM.
#define SLUICE_KERNEL_BOUNDED(threads, blocks) static __global__ __launch_bounds__(threads, blocks)
#define SLUICE_DEVICE static __device__ __forceinline__
#define SLUICE_DEVICE_MEMBER __device__ __forceinline__
#define SLUICE_UNROLL _Pragma("unroll")
#define SLUICE_SHARED(type, name, dimensions) __shared__ type name dimensions
// All of the block's dynamic shared memory, 16-byte aligned.
#define SLUICE_DYNAMIC_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char sluice_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(sluice_dynamic_shared)

namespace sluice::gpu {

SLUICE_DEVICE uint32_t thread_x() { return threadIdx.x; }
SLUICE_DEVICE uint32_t thread_y() { return threadIdx.y; }
SLUICE_DEVICE uint32_t block_x() { return blockIdx.x; }
SLUICE_DEVICE uint32_t block_y() { return blockIdx.y; }
SLUICE_DEVICE uint32_t block_z() { return blockIdx.z; }
SLUICE_DEVICE uint32_t block_dim_x() { return blockDim.x; }
SLUICE_DEVICE uint32_t block_threads() { return blockDim.x * blockDim.y; }
SLUICE_DEVICE uint32_t grid_x() { return gridDim.x; }
SLUICE_DEVICE uint32_t grid_y() { return gridDim.y; }
SLUICE_DEVICE uint32_t lane() { return (threadIdx.y * blockDim.x + threadIdx.x) % 32; }
SLUICE_DEVICE uint32_t warp() { return (threadIdx.y * blockDim.x + threadIdx.x) / 32; }

SLUICE_DEVICE void block_barrier() { __syncthreads(); }
SLUICE_DEVICE void warp_barrier() { __syncwarp(); }

// --- the kernels before and behind this one in a stream ---
// The next kernel, if it is launched `early` (gpu/launch.h), may begin as soon as all blocks have called this; it waits
// for this one's end where it needs it.
SLUICE_DEVICE void let_next_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Until all kernels before this one have ended and what they wrote is there.
SLUICE_DEVICE void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Both, for a kernel that has nothing to do before.
SLUICE_DEVICE void take_turn() {
  let_next_begin();
  wait_for_previous();
}

// --- warp collectives: float, int32_t, uint32_t ---
constexpr uint32_t all_lanes = 0xffffffffu;

template <class T>
SLUICE_DEVICE T shuffle_xor(T value, uint32_t mask) {
  return __shfl_xor_sync(all_lanes, value, static_cast<int>(mask));
}
template <class T>
SLUICE_DEVICE T shuffle_down(T value, uint32_t n) {
  return __shfl_down_sync(all_lanes, value, n);
}
template <class T>
SLUICE_DEVICE T shuffle(T value, uint32_t from_lane) {
  return __shfl_sync(all_lanes, value, static_cast<int>(from_lane));
}
SLUICE_DEVICE bool vote_any(bool value) { return __any_sync(all_lanes, value) != 0; }
SLUICE_DEVICE uint32_t ballot(bool value) { return __ballot_sync(all_lanes, value); }

SLUICE_DEVICE float warp_sum(float value) {
  SLUICE_UNROLL
  for (uint32_t mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
SLUICE_DEVICE int32_t warp_sum(int32_t value) {
  SLUICE_UNROLL
  for (uint32_t mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
SLUICE_DEVICE float warp_max(float value) {
  SLUICE_UNROLL
  for (uint32_t mask = 16; mask > 0; mask /= 2) value = fmaxf(value, shuffle_xor(value, mask));
  return value;
}

// --- integer dot products of four bytes: c + sum a[i] * b[i] ---
SLUICE_DEVICE int32_t dp4a_ss(int32_t a, int32_t b, int32_t c) { return __dp4a(a, b, c); }
SLUICE_DEVICE int32_t dp4a_us(uint32_t a, int32_t b, int32_t c) {
  int32_t d;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
SLUICE_DEVICE int32_t dot4(int32_t a, int32_t b, int32_t c) { return dp4a_ss(a, b, c); }
SLUICE_DEVICE int32_t dot4(uint32_t a, int32_t b, int32_t c) { return dp4a_us(a, b, c); }

// --- conversions, to nearest even ---
SLUICE_DEVICE float half_bits_to_float(uint16_t bits) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(bits));
  return f;
}
SLUICE_DEVICE uint16_t float_to_half_bits(float f) {
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(f));
  return bits;
}
// Two at once, the first one in the low bits.
SLUICE_DEVICE uint32_t floats_to_halves(float first, float second) {
  uint32_t bits;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
  return bits;
}
SLUICE_DEVICE float bf16_bits_to_float(uint16_t bits) { return __uint_as_float(static_cast<uint32_t>(bits) << 16); }
SLUICE_DEVICE uint16_t float_to_bf16_bits(float f) {
  uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(f));
  return bits;
}

// --- tensor cores ---
// d += a * b for a 16x16 (row-major) and b 16x8 (column-major), the fragments of mma.sync.m16n8k16.
SLUICE_DEVICE void mma_m16n8k16_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// The same of f16.
SLUICE_DEVICE void mma_m16n8k16_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// d += a * b for a 16x32 and b 32x8 of signed bytes, the fragments of mma.sync.m16n8k32.
SLUICE_DEVICE void mma_m16n8k32_s8(int32_t d[4], const uint32_t a[4], const uint32_t b[2]) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// d += a * b for a 16x16 and b 16x8 of signed bytes, the fragments of mma.sync.m16n8k16.
SLUICE_DEVICE void mma_m16n8k16_s8(int32_t d[4], const uint32_t a[2], uint32_t b) {
  asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b));
}
// Four 8x8 matrices of 16-bit values in shared memory; lane 8i + r gives the address of row r of matrix i.
SLUICE_DEVICE void ldmatrix_x4(uint32_t r[4], const void* row_address) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row_address));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// The same, each matrix transposed.
SLUICE_DEVICE void ldmatrix_x4_transposed(uint32_t r[4], const void* row_address) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row_address));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// --- asynchronous copies of 16 bytes from global to shared memory ---
SLUICE_DEVICE void async_copy16(void* shared, const void* global) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}
// A place in shared memory as copies take it: made once, it costs a register and no more instructions.
using SharedPlace = uint32_t;
SLUICE_DEVICE SharedPlace shared_place(const void* shared) {
  uint32_t place = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("" : "+r"(place));
  return place;
}
// For memory that is read once.
SLUICE_DEVICE void async_copy16_to(SharedPlace to, const void* global) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}
SLUICE_DEVICE void async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most n of the newest committed groups are under way.
template <int n>
SLUICE_DEVICE void async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory");
}

// --- rows from global to shared memory, whose end a barrier in shared memory tells: compute capability 9.0 and later
// --- Each use of the barrier is begun by `threads`, with the bytes that each is to bring; uses count from 0 on.
struct TransferBarrier {
  uint64_t state;
};
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
SLUICE_DEVICE uint32_t transfer_place(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}
// By one thread; the others know of it behind a block_barrier().
SLUICE_DEVICE void transfer_init(TransferBarrier& barrier, uint32_t threads) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(transfer_place(&barrier)), "r"(threads) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
SLUICE_DEVICE void transfer_expect(TransferBarrier& barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(transfer_place(&barrier)), "r"(bytes)
               : "memory");
}
// Addresses and bytes are multiples of 16.
SLUICE_DEVICE void transfer_row(TransferBarrier& barrier, void* shared, const void* global, uint32_t bytes) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   transfer_place(shared)),
               "l"(global), "r"(bytes), "r"(transfer_place(&barrier))
               : "memory");
}
// Until all bytes of the use are there; parity: that of its number.
SLUICE_DEVICE void transfer_wait(TransferBarrier& barrier, uint32_t parity) {
  uint32_t done = 0;
  do {
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(done)
                 : "r"(transfer_place(&barrier)), "r"(parity)
                 : "memory");
  } while (done == 0);
}
#else
SLUICE_DEVICE void transfer_init(TransferBarrier&, uint32_t) { __trap(); }
SLUICE_DEVICE void transfer_expect(TransferBarrier&, uint32_t) {}
SLUICE_DEVICE void transfer_row(TransferBarrier&, void*, const void*, uint32_t) {}
SLUICE_DEVICE void transfer_wait(TransferBarrier&, uint32_t) {}
#endif

// --- vector access ---
struct alignas(16) Vec16 {
  uint32_t words[4];
};

SLUICE_DEVICE Vec16 load16(const void* p) { return *static_cast<const Vec16*>(p); }
SLUICE_DEVICE void store16(void* p, const Vec16& v) { *static_cast<Vec16*>(p) = v; }
// Of memory that no kernel writes meanwhile and that is read once.
SLUICE_DEVICE Vec16 load_nc16(const void* p) {
  Vec16 v;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
      : "=r"(v.words[0]), "=r"(v.words[1]), "=r"(v.words[2]), "=r"(v.words[3])
      : "l"(p));
  return v;
}
// Bits shift..shift+31 of high:low, for shifts below 32.
SLUICE_DEVICE uint32_t funnel_right(uint32_t low, uint32_t high, uint32_t shift) {
  return __funnelshift_r(low, high, shift);
}
// Four bytes at any 2-byte alignment.
SLUICE_DEVICE uint32_t load_bytes4(const void* p) {
  const auto* half = static_cast<const uint16_t*>(p);
  return __ldg(half) | static_cast<uint32_t>(__ldg(half + 1)) << 16;
}

// --- math and atomics ---
SLUICE_DEVICE float fast_exp(float x) { return __expf(x); }
// 2^x to some 2^-22 of itself; 0 of -infinity.
SLUICE_DEVICE float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
SLUICE_DEVICE uint32_t atomic_add(uint32_t* p, uint32_t v) { return atomicAdd(p, v); }
SLUICE_DEVICE float atomic_add(float* p, float v) { return atomicAdd(p, v); }
SLUICE_DEVICE int32_t atomic_max(int32_t* p, int32_t v) { return atomicMax(p, v); }

}  // namespace sluice::gpu
