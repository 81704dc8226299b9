#include <cuda.h>

#include "gpu/kernels/intrinsics.h"
#include "gpu/launch.h"
#include "tests/planted/planted.h"
#include "tests/support/cuda_buffers.h"

namespace sluice::planted {
namespace {

using gpu::launch;
using testing::CudaEvent;
using testing::CudaStream;
using testing::DeviceArray;
using testing::must;
using testing::PinnedArray;

constexpr uint32_t n = 256;

SLUICE_KERNEL void add_one(const uint32_t* from, uint32_t* to) {
  const uint32_t i = gpu::block_x() * gpu::block_dim_x() + gpu::thread_x();
  to[i] = from[i] + 1;
}

void copy_in(const DeviceArray<uint32_t>& to, const PinnedArray<uint32_t>& from, const CudaStream& stream) {
  must(cudaMemcpyAsync(to.data(), from.data(), n * 4, cudaMemcpyHostToDevice, stream), "copy");
}

bool add(const DeviceArray<uint32_t>& from, const PinnedArray<uint32_t>& to, const CudaStream& stream) {
  return launch(stream, {"add_one"}, {.grid_x = n / 32}, add_one, from.data(), to.data()).ok();
}

bool all_are(const PinnedArray<uint32_t>& values, uint32_t wanted) {
  for (const uint32_t value : values) {
    if (value != wanted) return false;
  }
  return true;
}

// A copy on one stream, a kernel that needs it on another; `order` puts them in order.
template <class Order>
bool copy_then_compute(Order order) {
  const CudaStream copies, compute;
  const PinnedArray<uint32_t> input(n, 6), output(n, 0);
  const DeviceArray<uint32_t> on_device(n);
  copy_in(on_device, input, copies);
  order(copies, compute);
  if (!add(on_device, output, compute)) return false;
  compute.synchronize();
  const bool right = all_are(output, 7);
  copies.synchronize();
  return right;
}

template <class Function>
Function driver_function(const char* name) {
  void* function = nullptr;
  must(cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault), name);
  return reinterpret_cast<Function>(function);
}

}  // namespace

bool missing_event_wait(bool wrong) {
  const CudaEvent copied;
  return copy_then_compute([&](const CudaStream& copies, const CudaStream& compute) {
    must(cudaEventRecord(copied, copies), "record");
    if (wrong) must(cudaStreamSynchronize(compute), "another stream");
    if (!wrong) must(cudaStreamWaitEvent(compute, copied), "wait");
  });
}

// The counter keeps the time, but CUDA makes no promise about what another stream sees after it.
bool counter_without_event(bool wrong) {
  const auto write = driver_function<decltype(&cuStreamWriteValue64)>("cuStreamWriteValue64");
  const auto wait = driver_function<decltype(&cuStreamWaitValue64)>("cuStreamWaitValue64");
  const PinnedArray<uint64_t> counter(1, 0);
  const auto address = reinterpret_cast<CUdeviceptr>(counter.data());
  const CudaEvent copied;
  return copy_then_compute([&](const CudaStream& copies, const CudaStream& compute) {
    must(cudaEventRecord(copied, copies), "record");
    write(copies, address, 1, CU_STREAM_WRITE_VALUE_DEFAULT);
    wait(compute, address, 1, CU_STREAM_WAIT_VALUE_GEQ);
    if (!wrong) must(cudaStreamWaitEvent(compute, copied), "wait");
  });
}

bool missing_synchronize(bool wrong) {
  const CudaStream stream;
  const PinnedArray<uint32_t> input(n, 6), output(n, 0);
  const DeviceArray<uint32_t> on_device(n);
  copy_in(on_device, input, stream);
  if (!add(on_device, output, stream)) return false;
  if (!wrong) stream.synchronize();
  const bool right = all_are(output, 7);
  stream.synchronize();
  return right;
}

}  // namespace sluice::planted
