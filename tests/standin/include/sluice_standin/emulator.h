// What the host definitions of the kernel intrinsics call: the emulator that runs one fiber for each CUDA thread.
//
// All of this is for code that runs inside a kernel, on a stream's thread. Every barrier and collective takes the
// place in the source that it stands at; a thread that misses it is reported with that place, ends the kernel and
// fails the stream for good, as a fault on a GPU does.
#pragma once

#include <cstddef>
#include <cstdint>

namespace standin {

struct Site {
  const char* file;
  int line;
};

// What all threads of a block share.
struct CudaBlock {
  uint32_t x, y, z;
  uint32_t dim_x, dim_y, threads;
  uint32_t grid_x, grid_y;
};
struct CudaThread {
  uint32_t x, y;
  uint32_t lane, warp;
  const CudaBlock* block;
};
extern __thread const CudaThread* current_thread;

void block_barrier(Site site);
void warp_barrier(Site site);

// The value that lane `source` of the warp gave.
uint32_t shuffle(uint32_t value, uint32_t source, Site site);
// A bit for each lane whose `vote` is true.
uint32_t ballot(bool vote, Site site);

struct Row16 {  // a row of an 8x8 matrix of 16-bit values
  uint32_t words[4];
};
// Lane i gave row i % 8 of matrix i / 8; word k of the result is what this lane holds of matrix k.
void distribute_rows(uint32_t result[4], const Row16& row, Site site);
// The same of the transposed matrices.
void distribute_columns(uint32_t result[4], const Row16& row, Site site);
void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2], Site site);
void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2], Site site);
void mma_s8(int32_t d[4], const uint32_t a[4], const uint32_t b[2], Site site);

// The memory of a shared array, the same for all threads of a block. A key names a declaration. Fresh memory is
// filled with 0xFF and aligned to 16 bytes.
void* shared_array(const void* key, const char* name, size_t bytes, Site site);
void* dynamic_shared(Site site);
void wait_for_previous();

// Asynchronous copies of 16 bytes happen where they are waited for, in the waiting thread.
struct AsyncCopy {
  void* shared;
  const void* global;
};
void async_start(const AsyncCopy& copy, Site site);
void async_commit();
// Takes the next copy that a wait for all but the last `pending` groups covers.
bool async_next(uint32_t pending, AsyncCopy* copy);

// Copies of rows for one use of a barrier in shared memory, announced by so many threads. They happen where its end
// is first waited for, in that thread. To wait for a use that not all of them have begun, or of which less was started
// than was announced, fails, as does to begin one before the last has ended; so it shows that each was waited for.
struct RowCopy {
  void* shared;
  const void* global;
  uint32_t bytes;
};
void transfer_init(const void* barrier, uint32_t threads, Site site);
void transfer_expect(const void* barrier, uint32_t bytes, Site site);
void transfer_start(const void* barrier, const RowCopy& copy, Site site);
// Takes the next copy that a wait for the use of this parity covers.
bool transfer_next(const void* barrier, uint32_t parity, RowCopy* copy, Site site);
void transfer_end(const void* barrier, uint32_t parity);

// Ends the kernel with an error unless `address` is a multiple of `bytes`.
inline bool aligned(const void* address, size_t bytes) { return reinterpret_cast<uintptr_t>(address) % bytes == 0; }
[[noreturn]] void misaligned(const void* address, size_t bytes, Site site);

}  // namespace standin
