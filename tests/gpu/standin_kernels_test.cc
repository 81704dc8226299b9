// The stand-in's emulation of CUDA threads: indices, barriers, collectives, shared memory, tensor cores, and what it
// reports of kernels that do wrong.
#include <doctest/doctest.h>
#include <sluice_standin/control.h>

#include <numeric>
#include <string>

#include "gpu/kernels/intrinsics.h"
#include "gpu/launch.h"
#include "tests/support/cuda_buffers.h"

namespace sluice::gpu {
namespace {

using testing::CudaStream;
using testing::DeviceArray;

SLUICE_KERNEL void write_indices(uint32_t* out) {
  const uint32_t block = (block_z() * grid_y() + block_y()) * grid_x() + block_x();
  const uint32_t thread = thread_y() * block_dim_x() + thread_x();
  uint32_t* at = out + 4 * (block * block_threads() + thread);
  at[0] = block;
  at[1] = thread;
  at[2] = warp();
  at[3] = lane();
}

SLUICE_KERNEL void collectives(const float* in, float* sums, uint32_t* bits) {
  const float v = in[thread_x()];
  const uint32_t i = thread_x();
  sums[i] = warp_sum(v);
  sums[32 + i] = warp_max(v);
  sums[64 + i] = shuffle_xor(v, 5);
  sums[96 + i] = shuffle_down(v, 3);
  sums[128 + i] = shuffle(v, 9);
  bits[i] = ballot(i % 3 == 0);
  bits[32 + i] = vote_any(i == 7) ? 1 : 0;
  bits[64 + i] = static_cast<uint32_t>(warp_sum(static_cast<int32_t>(i)));
}

SLUICE_DEVICE float block_sum(float v) {
  SLUICE_SHARED(float, partial, [32]);
  v = warp_sum(v);
  if (lane() == 0) partial[warp()] = v;
  block_barrier();
  float sum = 0;
  for (uint32_t i = 0; i < block_threads() / 32; ++i) sum += partial[i];
  block_barrier();
  return sum;
}

SLUICE_KERNEL void sum_rows(const float* in, float* out, uint32_t columns) {
  float sum = 0;
  for (uint32_t i = thread_x(); i < columns; i += block_threads()) sum += in[block_x() * columns + i];
  sum = block_sum(sum);
  if (thread_x() == 0) out[block_x()] = sum;
}

// Reverses a row through dynamic shared memory with asynchronous copies in two groups.
SLUICE_KERNEL void reverse_rows(const uint32_t* in, uint32_t* out, uint32_t columns) {
  SLUICE_DYNAMIC_SHARED(uint32_t, row);
  for (uint32_t half = 0; half < 2; ++half) {
    for (uint32_t i = 4 * thread_x() + half * columns / 2; i < (half + 1) * columns / 2; i += 4 * block_threads()) {
      async_copy16(row + i, in + block_x() * columns + i);
    }
    async_commit();
  }
  async_wait<1>();
  block_barrier();
  for (uint32_t i = thread_x(); i < columns / 2; i += block_threads()) {
    out[block_x() * columns + columns - 1 - i] = row[i];
  }
  async_wait<0>();
  block_barrier();
  for (uint32_t i = thread_x() + columns / 2; i < columns; i += block_threads()) {
    out[block_x() * columns + columns - 1 - i] = row[i];
  }
}

// Turns pairs of rows about, which come whole, two at a time, by one warp each.
struct RowsMemory {
  TransferBarrier there[2];
  alignas(16) uint32_t rows[2][2][64];
};
SLUICE_KERNEL void swap_rows(const uint32_t* in, uint32_t* out, uint32_t pairs) {
  SLUICE_DYNAMIC_SHARED(RowsMemory, memory);
  if (thread_x() == 0)
    for (TransferBarrier& barrier : memory->there) transfer_init(barrier, 2);
  block_barrier();
  const auto start = [&](uint32_t pair) {
    if (pair >= pairs || lane() != 0) return;
    transfer_expect(memory->there[pair % 2], 256);
    transfer_row(memory->there[pair % 2], memory->rows[pair % 2][warp()], in + (2 * pair + warp()) * 64, 256);
  };
  start(0);
  start(1);
  block_barrier();
  for (uint32_t pair = 0; pair < pairs; ++pair) {
    transfer_wait(memory->there[pair % 2], pair / 2 % 2);
    for (uint32_t i = lane(); i < 64; i += 32)
      out[(2 * pair + warp()) * 64 + i] = memory->rows[pair % 2][1 - warp()][i];
    block_barrier();
    start(pair + 2);
  }
}

// What goes wrong with rows: 0: nobody announces them; 1: fewer start than were announced; 2: nobody waits; 3: they are
// announced again too soon; 4: more start than were announced; 5: a row of no multiple of 16.
template <int wrong>
void wrong_rows(uint32_t* out) {
  SLUICE_DYNAMIC_SHARED(RowsMemory, memory);
  TransferBarrier& barrier = memory->there[0];
  if (thread_x() == 0) transfer_init(barrier, 1);
  block_barrier();
  if (thread_x() == 0) {
    if (wrong != 0) transfer_expect(barrier, wrong == 1 ? 256 : 128);
    if (wrong == 3) transfer_expect(barrier, 128);
    if (wrong != 0) transfer_row(barrier, memory->rows[0][0], out, wrong == 5 ? 120 : 128);
    if (wrong == 4) transfer_row(barrier, memory->rows[0][1], out, 128);
  }
  block_barrier();
  if (wrong != 2) transfer_wait(barrier, 0);
}

// One 16x8 tile of a (16x16, row-major) times b (8x16: the columns of b).
SLUICE_KERNEL void multiply_bf16(const uint16_t* a, const uint16_t* b, float* d) {
  SLUICE_SHARED(uint16_t, tile, [16 * 16]);
  for (uint32_t i = lane(); i < 16 * 16; i += 32) tile[i] = a[i];
  warp_barrier();
  uint32_t fragment[4], other[2];
  // Matrices: rows 0..7 and 8..15 of columns 0..7, then of columns 8..15.
  ldmatrix_x4(fragment, tile + (lane() % 16) * 16 + lane() / 16 * 8);
  const uint32_t column = lane() / 4, k = lane() % 4 * 2;
  other[0] = load_bytes4(b + column * 16 + k);
  other[1] = load_bytes4(b + column * 16 + k + 8);
  float sums[4] = {1, 1, 1, 1};
  mma_m16n8k16_bf16(sums, fragment, other);
  for (uint32_t i = 0; i < 4; ++i) d[(lane() / 4 + i / 2 * 8) * 8 + lane() % 4 * 2 + i % 2] = sums[i];
}

SLUICE_KERNEL void multiply_s8(const int8_t* a, const int8_t* b, int32_t* d) {
  uint32_t fragment[4], other[2];
  const uint32_t row = lane() / 4, k = lane() % 4 * 4;
  for (uint32_t i = 0; i < 4; ++i) fragment[i] = load_bytes4(a + (row + i % 2 * 8) * 32 + k + i / 2 * 16);
  for (uint32_t i = 0; i < 2; ++i) other[i] = load_bytes4(b + row * 32 + k + i * 16);
  int32_t sums[4] = {1, 1, 1, 1};
  mma_m16n8k32_s8(sums, fragment, other);
  for (uint32_t i = 0; i < 4; ++i) d[(row + i / 2 * 8) * 8 + lane() % 4 * 2 + i % 2] = sums[i];
}

SLUICE_KERNEL void count(uint32_t* n, float* sum, int32_t* most) {
  atomic_add(n, 1);
  atomic_add(sum, 0.5f);
  atomic_max(most, static_cast<int32_t>(block_x() * block_threads() + thread_x()));
}

constexpr int first_barrier_line = __LINE__ + 4;
SLUICE_KERNEL void waits_at_two_places(uint32_t* out) {
  out[thread_x()] = 0;
  if (warp() == 0) {
    block_barrier();
  } else {
    block_barrier();
  }
}

constexpr int missed_barrier_line = __LINE__ + 3;
SLUICE_KERNEL void misses_a_barrier(uint32_t* out) {
  if (thread_x() == 40) return;
  block_barrier();
  out[thread_x()] = 0;
}

SLUICE_KERNEL void partial_collective(uint32_t* out) {
  if (lane() < 16) out[lane()] = shuffle(lane(), 3);
  warp_barrier();
}

SLUICE_KERNEL void too_much_shared(uint32_t* out) {
  SLUICE_SHARED(uint32_t, values, [64 * 1024]);
  values[0] = 0;
  out[0] = values[0];
}

SLUICE_KERNEL void unaligned_store(float* out) { store16(out + 1, Vec16{}); }

struct Fixture {
  explicit Fixture(const standin::Options& options = {}) { standin::reset(options); }
  ~Fixture() { CHECK(standin::live() == standin::Live{}); }
};

std::vector<float> ramp(size_t n) {
  std::vector<float> values(n);
  std::iota(values.begin(), values.end(), -3.0f);
  return values;
}

std::string file_and_line(int line) { return std::string(__FILE__) + ":" + std::to_string(line); }

// The one error that launching `kernel` on 64 threads makes.
std::string error_of(void (*kernel)(uint32_t*), uint32_t shared_bytes = 0) {
  const Fixture fixture;
  std::string text;
  {
    const CudaStream stream;
    const DeviceArray<uint32_t> out(64);
    REQUIRE(launch(stream, {"a_kernel"}, {.block_x = 64, .shared_bytes = shared_bytes}, kernel, out.data()).ok());
    CHECK(cudaStreamSynchronize(stream) == cudaErrorLaunchFailure);
    CHECK(cudaStreamQuery(stream) == cudaErrorLaunchFailure);  // and for good
    const std::vector<std::string> errors = standin::errors();
    REQUIRE(errors.size() == 1);
    text = errors[0];
  }
  return text;
}

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("standin: every thread knows where it is") {
  const Fixture fixture;
  const CudaStream stream;
  const LaunchShape shape = {.grid_x = 3, .grid_y = 2, .grid_z = 2, .block_x = 16, .block_y = 4};
  const uint32_t blocks = 12, threads = 64;
  const DeviceArray<uint32_t> out(4 * blocks * threads);
  REQUIRE(launch(stream, {"write_indices"}, shape, write_indices, out.data()).ok());
  const std::vector<uint32_t> got = out.read(stream);
  bool right = true;
  for (uint32_t i = 0; i < blocks * threads; ++i) {
    const uint32_t thread = i % threads;
    right &= got[4 * i] == i / threads && got[4 * i + 1] == thread && got[4 * i + 2] == thread / 32 &&
             got[4 * i + 3] == thread % 32;
  }
  CHECK(right);
}

TEST_CASE("standin: warp collectives") {
  const Fixture fixture;
  const CudaStream stream;
  const DeviceArray<float> in(stream, ramp(32)), sums(160);
  const DeviceArray<uint32_t> bits(96);
  REQUIRE(launch(stream, {"collectives"}, {}, collectives, in.data(), sums.data(), bits.data()).ok());
  const std::vector<float> got = sums.read(stream);
  const std::vector<uint32_t> votes = bits.read(stream);
  for (uint32_t i = 0; i < 32; ++i) {
    CAPTURE(i);
    CHECK(got[i] == 31 * 16 - 3 * 32);
    CHECK(got[32 + i] == 28);
    CHECK(got[64 + i] == static_cast<float>(i ^ 5) - 3);
    CHECK(got[96 + i] == static_cast<float>(i + 3 < 32 ? i + 3 : i) - 3);
    CHECK(got[128 + i] == 6);
    CHECK(votes[i] == 0x49249249u);
    CHECK(votes[32 + i] == 1);
    CHECK(votes[64 + i] == 31 * 16);
  }
}

TEST_CASE("standin: shared memory and barriers, for blocks of all sizes in turn") {
  const Fixture fixture;
  const CudaStream stream;
  const uint32_t rows = 5, columns = 700;
  const DeviceArray<float> in(stream, std::vector<float>(rows * columns, 0.5f)), out(rows);
  for (const uint32_t threads : {64u, 32u, 256u, 1024u, 128u}) {
    CAPTURE(threads);
    REQUIRE(launch(stream, {"sum_rows"}, {.grid_x = rows, .block_x = threads}, sum_rows, in.data(), out.data(), columns)
                .ok());
    CHECK(out.read(stream) == std::vector<float>(rows, 0.5f * columns));
  }
}

TEST_CASE("standin: asynchronous copies and dynamic shared memory") {
  const Fixture fixture;
  const CudaStream stream;
  const uint32_t rows = 3, columns = 1024;
  std::vector<uint32_t> values(rows * columns), wanted(rows * columns);
  std::iota(values.begin(), values.end(), 0u);
  for (uint32_t i = 0; i < rows * columns; ++i) wanted[i] = i / columns * columns + columns - 1 - i % columns;
  const DeviceArray<uint32_t> in(stream, values), out(rows * columns);
  const LaunchShape shape = {.grid_x = rows, .block_x = 64, .shared_bytes = columns * 4};
  REQUIRE(launch(stream, {"reverse_rows"}, shape, reverse_rows, in.data(), out.data(), columns).ok());
  CHECK(out.read(stream) == wanted);
}

TEST_CASE("standin: rows that come whole, and a barrier that tells when") {
  const Fixture fixture;
  const CudaStream stream;
  for (const uint32_t pairs : {1u, 2u, 5u}) {
    std::vector<uint32_t> values(pairs * 128), wanted(pairs * 128);
    std::iota(values.begin(), values.end(), 0u);
    for (uint32_t i = 0; i < values.size(); ++i) wanted[i] = values[i ^ 64];
    const DeviceArray<uint32_t> in(stream, values), out(values.size());
    const LaunchShape shape = {.block_x = 64, .shared_bytes = sizeof(RowsMemory)};
    REQUIRE(launch(stream, {"swap_rows"}, shape, swap_rows, in.data(), out.data(), pairs).ok());
    CHECK(out.read(stream) == wanted);
  }
}

TEST_CASE("standin: tensor cores, bf16") {
  const Fixture fixture;
  const CudaStream stream;
  std::vector<uint16_t> a(16 * 16), b(8 * 16);
  for (uint32_t i = 0; i < a.size(); ++i) a[i] = float_to_bf16_bits(static_cast<float>(i % 23) - 11);
  for (uint32_t i = 0; i < b.size(); ++i) b[i] = float_to_bf16_bits(static_cast<float>(i % 17) * 0.25f - 2);
  const DeviceArray<uint16_t> left(stream, a), right(stream, b);
  const DeviceArray<float> out(16 * 8);
  REQUIRE(launch(stream, {"multiply_bf16"}, {}, multiply_bf16, left.data(), right.data(), out.data()).ok());
  const std::vector<float> got = out.read(stream);
  for (uint32_t row = 0; row < 16; ++row) {
    for (uint32_t column = 0; column < 8; ++column) {
      double sum = 1;
      for (uint32_t k = 0; k < 16; ++k) {
        sum += static_cast<double>(bf16_bits_to_float(a[row * 16 + k])) * bf16_bits_to_float(b[column * 16 + k]);
      }
      CAPTURE(row);
      CAPTURE(column);
      CHECK(got[row * 8 + column] == sum);  // all of it is exact
    }
  }
}

TEST_CASE("standin: tensor cores, signed bytes") {
  const Fixture fixture;
  const CudaStream stream;
  std::vector<int8_t> a(16 * 32), b(8 * 32);
  for (uint32_t i = 0; i < a.size(); ++i) a[i] = static_cast<int8_t>(i * 37);
  for (uint32_t i = 0; i < b.size(); ++i) b[i] = static_cast<int8_t>(i * 91 + 5);
  const DeviceArray<int8_t> left(stream, a), right(stream, b);
  const DeviceArray<int32_t> out(16 * 8);
  REQUIRE(launch(stream, {"multiply_s8"}, {}, multiply_s8, left.data(), right.data(), out.data()).ok());
  const std::vector<int32_t> got = out.read(stream);
  for (uint32_t i = 0; i < 16 * 8; ++i) {
    int32_t sum = 1;
    for (uint32_t k = 0; k < 32; ++k) sum += a[i / 8 * 32 + k] * b[i % 8 * 32 + k];
    CAPTURE(i);
    CHECK(got[i] == sum);
  }
}

TEST_CASE("standin: dot products of bytes") {
  CHECK(dp4a_ss(static_cast<int32_t>(0x80FF017Fu), 0x02030405, 10) == 10 + 127 * 5 + 4 - 3 - 256);
  CHECK(dp4a_us(0x80FF017Fu, static_cast<int32_t>(0xFE030405u), 10) == 10 + 127 * 5 + 4 + 255 * 3 - 128 * 2);
}

TEST_CASE("standin: atomics") {
  const Fixture fixture;
  const CudaStream stream;
  const DeviceArray<uint32_t> n(stream, {0});
  const DeviceArray<float> sum(stream, {0});
  const DeviceArray<int32_t> most(stream, {-1});
  REQUIRE(launch(stream, {"count"}, {.grid_x = 4, .block_x = 96}, count, n.data(), sum.data(), most.data()).ok());
  CHECK(n.read(stream)[0] == 384);
  CHECK(sum.read(stream)[0] == 192);
  CHECK(most.read(stream)[0] == 383);
}

TEST_CASE("standin: a barrier that some threads miss is an error that says where") {
  const std::string missed = error_of(misses_a_barrier);
  CHECK(holds(missed, "kernel a_kernel, block (0,0,0)"));
  CHECK(holds(missed, file_and_line(missed_barrier_line) + ": 63 threads wait at block_barrier"));
  CHECK(holds(missed, "1 of 64 have left the kernel"));
  const std::string two_places = error_of(waits_at_two_places);
  CHECK(holds(two_places, file_and_line(first_barrier_line)));
  CHECK(holds(two_places, file_and_line(first_barrier_line + 2)));
}

TEST_CASE("standin: a collective of half a warp is an error") {
  const std::string error = error_of(partial_collective);
  CHECK(holds(error, "shuffle"));
  CHECK(holds(error, "warp_barrier"));
}

TEST_CASE("standin: more than 48 KiB of static shared memory is an error") {
  CHECK(holds(error_of(too_much_shared), "48 KiB"));
}

TEST_CASE("standin: rows that are not announced, not waited for, or not what was announced, are errors") {
  const auto error = [](void (*kernel)(uint32_t*)) { return error_of(kernel, sizeof(RowsMemory)); };
  CHECK(holds(error(wrong_rows<0>), "waits for rows that 0 of 1 threads have announced"));
  CHECK(holds(error(wrong_rows<1>), "waits for 256 bytes of rows, of which 128 are on their way"));
  CHECK(holds(error(wrong_rows<2>), "ends while rows are on their way"));
  CHECK(holds(error(wrong_rows<3>), "announced before those announced last were waited for"));
  CHECK(holds(error(wrong_rows<4>), "a row is copied that was not announced"));
  CHECK(holds(error(wrong_rows<5>), "no multiple of 16"));
}

TEST_CASE("standin: a misaligned access is an error") {
  const Fixture fixture;
  const CudaStream stream;
  const DeviceArray<float> out(64);
  REQUIRE(launch(stream, {"unaligned_store"}, {}, unaligned_store, out.data()).ok());
  CHECK(cudaStreamSynchronize(stream) == cudaErrorLaunchFailure);
  REQUIRE(standin::errors().size() == 1);
  CHECK(holds(standin::errors()[0], "access of 16 bytes"));
}

TEST_CASE("standin: launches that CUDA refuses") {
  const Fixture fixture;
  const CudaStream stream;
  const DeviceArray<uint32_t> out(64);
  launch_totals() = {};
  for (const LaunchShape& shape : {LaunchShape{.block_x = 33}, LaunchShape{.block_x = 2048}, LaunchShape{.block_x = 0},
                                   LaunchShape{.grid_y = 70000}, LaunchShape{.shared_bytes = 128 * 1024}}) {
    const Status status = launch(stream, {"refused_kernel"}, shape, misses_a_barrier, out.data());
    CHECK(status.code() == Code::unavailable);
    CHECK(holds(status.message(), "refused_kernel"));
  }
  CHECK(launch(stream, {"nothing"}, {.grid_x = 0}, misses_a_barrier, out.data()).ok());
  CHECK(launch_totals().launches == 0);
  const DeviceArray<uint32_t> indices(4 * 32);
  CHECK(launch(stream, {"counted", 100, 7}, {}, write_indices, indices.data()).ok());
  stream.synchronize();
  CHECK(launch_totals().launches == 1);
  CHECK(launch_totals().bytes == 100);
  CHECK(launch_totals().flops == 7);
}

}  // namespace sluice::gpu
