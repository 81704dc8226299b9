// The stand-in's runtime: streams, events, counters, graphs, memory, faults, the time that copies take.
#include <cuda.h>
#include <doctest/doctest.h>
#include <sluice_standin/control.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "gpu/kernels/intrinsics.h"
#include "gpu/launch.h"
#include "tests/support/cuda_buffers.h"

namespace sluice::gpu {
namespace {

using standin::Call;
using testing::CudaEvent;
using testing::CudaStream;
using testing::DeviceArray;
using testing::PinnedArray;

SLUICE_KERNEL void multiply_add(uint32_t* value, uint32_t factor, uint32_t addend) {
  if (thread_x() == 0) *value = *value * factor + addend;
}

struct Fixture {
  explicit Fixture(const standin::Options& options = {}) { standin::reset(options); }
  ~Fixture() { CHECK(standin::live() == standin::Live{}); }
};

Status step(cudaStream_t stream, uint32_t* value, uint32_t factor, uint32_t addend) {
  return launch(stream, {"multiply_add"}, {}, multiply_add, value, factor, addend);
}

template <class Function>
Function driver_function(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  REQUIRE(cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &result) == cudaSuccess);
  REQUIRE(result == cudaDriverEntryPointSuccess);
  return reinterpret_cast<Function>(function);
}

// A counter in mapped memory with the driver's operations on it.
class Counter {
 public:
  CUresult wait(cudaStream_t stream, uint64_t value) const {
    return wait_(stream, address(), value, CU_STREAM_WAIT_VALUE_GEQ);
  }
  CUresult write(cudaStream_t stream, uint64_t value) const {
    return write_(stream, address(), value, CU_STREAM_WRITE_VALUE_DEFAULT);
  }
  void set(uint64_t value) { std::atomic_ref(memory_[0]).store(value, std::memory_order_release); }
  uint64_t get() { return std::atomic_ref(memory_[0]).load(std::memory_order_acquire); }

 private:
  CUdeviceptr address() const { return reinterpret_cast<CUdeviceptr>(memory_.data()); }
  PinnedArray<uint64_t> memory_{1};
  decltype(&cuStreamWaitValue64) wait_ = driver_function<decltype(&cuStreamWaitValue64)>("cuStreamWaitValue64");
  decltype(&cuStreamWriteValue64) write_ = driver_function<decltype(&cuStreamWriteValue64)>("cuStreamWriteValue64");
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TEST_CASE("standin: a stream works in order and after the call has returned") {
  const Fixture fixture;
  Counter go;
  const CudaStream stream;
  const PinnedArray<uint32_t> input(1, 1), output(1, 0);
  const DeviceArray<uint32_t> value(1);
  REQUIRE(go.wait(stream, 1) == CUDA_SUCCESS);
  REQUIRE(cudaMemcpyAsync(value.data(), input.data(), 4, cudaMemcpyHostToDevice, stream) == cudaSuccess);
  for (uint32_t i = 0; i < 5; ++i) REQUIRE(step(stream, value.data(), 3, i).ok());
  REQUIRE(cudaMemcpyAsync(output.data(), value.data(), 4, cudaMemcpyDefault, stream) == cudaSuccess);
  CHECK(cudaStreamQuery(stream) == cudaErrorNotReady);
  CHECK(output[0] == 0);
  go.set(1);
  stream.synchronize();
  CHECK(cudaStreamQuery(stream) == cudaSuccess);
  uint32_t wanted = 1;
  for (uint32_t i = 0; i < 5; ++i) wanted = wanted * 3 + i;
  CHECK(output[0] == wanted);
}

TEST_CASE("standin: fills, copies within the device, and pageable memory") {
  const Fixture fixture;
  const CudaStream stream;
  const DeviceArray<uint32_t> from(64), to(64);
  REQUIRE(cudaMemsetAsync(from.data(), 0x5A, 256, stream) == cudaSuccess);
  REQUIRE(cudaMemcpyAsync(to.data(), from.data(), 256, cudaMemcpyDeviceToDevice, stream) == cudaSuccess);
  std::vector<uint32_t> values(64);
  REQUIRE(cudaMemcpyAsync(values.data(), to.data(), 256, cudaMemcpyDeviceToHost, stream) == cudaSuccess);
  CHECK(values == std::vector<uint32_t>(64, 0x5A5A5A5Au));  // over when the call returns
}

TEST_CASE("standin: events order streams and are points in time") {
  const Fixture fixture;
  Counter go;
  const CudaStream first, second;
  const CudaEvent event(cudaEventDefault), later(cudaEventDefault);
  const DeviceArray<uint32_t> value(1);
  CHECK(cudaEventQuery(event) == cudaSuccess);  // never recorded
  REQUIRE(cudaMemsetAsync(value.data(), 0, 4, first) == cudaSuccess);
  REQUIRE(go.wait(first, 1) == CUDA_SUCCESS);
  REQUIRE(step(first, value.data(), 0, 5).ok());
  REQUIRE(cudaEventRecord(event, first) == cudaSuccess);
  REQUIRE(cudaStreamWaitEvent(second, event) == cudaSuccess);
  REQUIRE(step(second, value.data(), 10, 1).ok());
  REQUIRE(cudaEventRecord(later, second) == cudaSuccess);
  CHECK(cudaEventQuery(event) == cudaErrorNotReady);
  CHECK(cudaEventQuery(later) == cudaErrorNotReady);
  float milliseconds = -1;
  CHECK(cudaEventElapsedTime(&milliseconds, event, later) == cudaErrorNotReady);
  go.set(1);
  CHECK(cudaEventSynchronize(later) == cudaSuccess);
  CHECK(cudaEventQuery(event) == cudaSuccess);
  CHECK(cudaEventElapsedTime(&milliseconds, event, later) == cudaSuccess);
  CHECK(milliseconds >= 0);
  CHECK(value.read(second)[0] == 51);
}

TEST_CASE("standin: a wait is for the record that was there, not for a later one") {
  const Fixture fixture;
  Counter go;
  const CudaStream first, second;
  const CudaEvent event;
  REQUIRE(cudaEventRecord(event, first) == cudaSuccess);
  REQUIRE(cudaStreamWaitEvent(second, event) == cudaSuccess);
  REQUIRE(go.wait(first, 1) == CUDA_SUCCESS);
  REQUIRE(cudaEventRecord(event, first) == cudaSuccess);
  second.synchronize();
  CHECK(cudaEventQuery(event) == cudaErrorNotReady);
  go.set(1);
  first.synchronize();
}

TEST_CASE("standin: counters hand over between host and streams") {
  const Fixture fixture;
  Counter to_device, to_host;
  const CudaStream stream;
  const PinnedArray<uint32_t> shared(1, 0);
  for (uint64_t round = 1; round <= 20; ++round) {
    REQUIRE(to_device.wait(stream, round) == CUDA_SUCCESS);
    REQUIRE(step(stream, shared.data(), 2, 1).ok());
    REQUIRE(to_host.write(stream, round) == CUDA_SUCCESS);
  }
  uint32_t wanted = 0;
  for (uint64_t round = 1; round <= 20; ++round) {
    shared[0] += 1;
    wanted = (wanted + 1) * 2 + 1;
    to_device.set(round);
    while (to_host.get() < round) std::this_thread::yield();
    CHECK(shared[0] == wanted);
  }
  stream.synchronize();
}

TEST_CASE("standin: memory operations need pinned memory, and may be missing") {
  {
    const Fixture fixture;
    const CudaStream stream;
    uint64_t pageable = 0;
    const auto write = driver_function<decltype(&cuStreamWriteValue64)>("cuStreamWriteValue64");
    CHECK(write(stream, reinterpret_cast<CUdeviceptr>(&pageable), 1, 0) == CUDA_ERROR_INVALID_VALUE);
    void* function = &pageable;
    auto result = cudaDriverEntryPointSuccess;
    CHECK(cudaGetDriverEntryPointByVersion("cuNoSuchThing", &function, 12000, 0, &result) == cudaSuccess);
    CHECK(function == nullptr);
    CHECK(result == cudaDriverEntryPointSymbolNotFound);
  }
  const Fixture fixture({.memory_operations = false});
  const CudaStream stream;
  const Counter counter;
  CHECK(counter.write(stream, 1) == CUDA_ERROR_NOT_SUPPORTED);
  int supported = -1;
  const auto attribute = driver_function<decltype(&cuDeviceGetAttribute)>("cuDeviceGetAttribute");
  CHECK(attribute(&supported, CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS, 0) == CUDA_SUCCESS);
  CHECK(supported == 0);
}

TEST_CASE("standin: a graph runs what was captured, as often as it is launched") {
  const Fixture fixture;
  const CudaStream stream;
  const PinnedArray<uint32_t> input(1, 7), output(1, 0);
  const DeviceArray<uint32_t> value(1);
  cudaGraph_t graph = nullptr;
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  REQUIRE(cudaMemcpyAsync(value.data(), input.data(), 4, cudaMemcpyHostToDevice, stream) == cudaSuccess);
  REQUIRE(step(stream, value.data(), 2, 3).ok());
  REQUIRE(cudaMemcpyAsync(output.data(), value.data(), 4, cudaMemcpyDeviceToHost, stream) == cudaSuccess);
  CHECK(cudaStreamSynchronize(stream) == cudaErrorStreamCaptureUnsupported);
  REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  stream.synchronize();
  CHECK(output[0] == 0);  // nothing has run
  cudaGraphExec_t executable = nullptr;
  REQUIRE(cudaGraphInstantiate(&executable, graph) == cudaSuccess);
  REQUIRE(cudaGraphDestroy(graph) == cudaSuccess);
  CHECK(standin::live().graphs == 1);
  for (const uint32_t x : {7u, 8u, 100u}) {
    input[0] = x;
    REQUIRE(cudaGraphLaunch(executable, stream) == cudaSuccess);
    stream.synchronize();
    CHECK(output[0] == 2 * x + 3);
  }
  CHECK(cudaGraphExecDestroy(executable) == cudaSuccess);
}

TEST_CASE("standin: what a capture forbids") {
  const Fixture fixture;
  const CudaStream stream, other;
  const CudaEvent outside, inside;
  cudaGraph_t graph = nullptr;
  REQUIRE(cudaEventRecord(outside, other) == cudaSuccess);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorIllegalState);
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
  void* memory = nullptr;
  CHECK(cudaMalloc(&memory, 16) == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaEventRecord(inside, stream) == cudaSuccess);
  CHECK(cudaEventQuery(inside) == cudaErrorCapturedEvent);
  CHECK(cudaStreamWaitEvent(stream, inside) == cudaSuccess);
  CHECK(cudaStreamWaitEvent(stream, outside) == cudaErrorStreamCaptureIsolation);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);
  CHECK(graph == nullptr);
  CHECK(cudaStreamQuery(stream) == cudaSuccess);
  other.synchronize();
}

TEST_CASE("standin: device memory is bounded, new, and shared with other processes") {
  const Fixture fixture({.device_bytes = 1 << 20, .context_bytes = 1 << 18});
  const CudaStream stream;
  size_t free_bytes = 0, total = 0;
  REQUIRE(cudaMemGetInfo(&free_bytes, &total) == cudaSuccess);
  CHECK(total == 1 << 20);
  CHECK(free_bytes == 3 << 18);
  void* memory = nullptr;
  CHECK(cudaMalloc(&memory, (3 << 18) + 1) == cudaErrorMemoryAllocation);
  CHECK(memory == nullptr);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
  CHECK(cudaGetLastError() == cudaSuccess);
  standin::take_memory(1 << 18);
  CHECK(cudaMalloc(&memory, 3 << 18) == cudaErrorMemoryAllocation);
  {
    const DeviceArray<uint8_t> array(1 << 19);
    CHECK(array.read(stream) == std::vector<uint8_t>(1 << 19, 0xFF));
    CHECK(standin::live().device_bytes == 1 << 19);
    CHECK(cudaMalloc(&memory, 1) == cudaErrorMemoryAllocation);
  }
  standin::take_memory(0);
  CHECK(cudaMalloc(&memory, 3 << 18) == cudaSuccess);
  CHECK(cudaFree(static_cast<char*>(memory) + 256) == cudaErrorInvalidValue);
  CHECK(cudaFree(memory) == cudaSuccess);
  CHECK(cudaFree(nullptr) == cudaSuccess);
}

TEST_CASE("standin: page-locked memory is bounded too") {
  const Fixture fixture({.host_register_bytes = 10000});
  std::vector<std::byte> memory(8192);
  void* device = nullptr;
  CHECK(cudaHostGetDevicePointer(&device, memory.data(), 0) == cudaErrorInvalidValue);
  CHECK(cudaHostUnregister(memory.data()) == cudaErrorHostMemoryNotRegistered);
  REQUIRE(cudaHostRegister(memory.data(), memory.size(), cudaHostRegisterMapped) == cudaSuccess);
  CHECK(cudaHostRegister(memory.data() + 100, 10, 0) == cudaErrorHostMemoryAlreadyRegistered);
  CHECK(standin::live().registered_bytes == 8192);
  CHECK(cudaHostGetDevicePointer(&device, memory.data() + 1000, 0) == cudaSuccess);
  CHECK(device == memory.data() + 1000);
  void* more = nullptr;
  CHECK(cudaHostAlloc(&more, 4096, 0) == cudaErrorMemoryAllocation);
  CHECK(cudaHostAlloc(&more, 1000, 0) == cudaSuccess);
  CHECK(standin::live().host_bytes == 1000);
  CHECK(cudaFreeHost(more) == cudaSuccess);
  CHECK(cudaHostUnregister(memory.data()) == cudaSuccess);
}

TEST_CASE("standin: what CUDA might let pass is refused") {
  const Fixture fixture;
  const CudaStream stream;
  const DeviceArray<uint32_t> device(4);
  const PinnedArray<uint32_t> host(4);
  CHECK(cudaMemsetAsync(device.data(), 0, 16, nullptr) == cudaErrorInvalidResourceHandle);  // stream 0
  CHECK(cudaMemcpyAsync(device.data(), host.data(), 16, cudaMemcpyDeviceToHost, stream) == cudaErrorInvalidValue);
  CHECK(cudaMemcpyAsync(device.data() + 1, host.data(), 16, cudaMemcpyHostToDevice, stream) == cudaErrorInvalidValue);
  cudaEvent_t event = nullptr;
  REQUIRE(cudaEventCreateWithFlags(&event, 0) == cudaSuccess);
  REQUIRE(cudaEventDestroy(event) == cudaSuccess);
  CHECK(cudaEventQuery(event) == cudaErrorInvalidResourceHandle);
}

TEST_CASE("standin: the nth call fails, and only that one") {
  const Fixture fixture;
  standin::fail(Call::malloc, 2, cudaErrorMemoryAllocation);
  void* memory[3] = {};
  CHECK(cudaMalloc(&memory[0], 16) == cudaSuccess);
  CHECK(cudaMalloc(&memory[1], 16) == cudaErrorMemoryAllocation);
  CHECK(cudaMalloc(&memory[2], 16) == cudaSuccess);
  CHECK(standin::calls(Call::malloc) == 3);
  standin::fail(Call::free, 1, cudaErrorUnknown);
  CHECK(cudaFree(memory[0]) == cudaErrorUnknown);  // it is given back all the same
  CHECK(cudaFree(memory[2]) == cudaSuccess);
  const CudaStream stream;
  const DeviceArray<uint32_t> value(1);
  standin::fail(Call::launch, 1, cudaErrorLaunchOutOfResources);
  const Status refused = step(stream, value.data(), 1, 1);
  CHECK(refused.code() == Code::unavailable);
  CHECK(refused.message().find("multiply_add") != std::string::npos);
  CHECK(step(stream, value.data(), 1, 1).ok());
  stream.synchronize();
}

TEST_CASE("standin: a capture whose end fails leaves nothing behind") {
  const Fixture fixture;
  const CudaStream stream;
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  standin::fail(Call::end_capture, 1, cudaErrorUnknown);
  cudaGraph_t graph = nullptr;
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorUnknown);
  CHECK(graph == nullptr);
  stream.synchronize();
}

TEST_CASE("standin: work that faults fails every later call") {
  for (const Call call : {Call::run_kernel, Call::run_copy}) {
    const Fixture fixture;
    const CudaStream stream;
    const DeviceArray<uint32_t> value(1);
    const PinnedArray<uint32_t> output(1, 0);
    standin::fail(call, 1, cudaErrorIllegalAddress);
    REQUIRE(step(stream, value.data(), 1, 1).ok());
    (void)cudaMemcpyAsync(output.data(), value.data(), 4, cudaMemcpyDeviceToHost, stream);
    CHECK(cudaStreamSynchronize(stream) == cudaErrorIllegalAddress);
    void* memory = nullptr;
    CHECK(cudaMalloc(&memory, 16) == cudaErrorIllegalAddress);
    CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
    CHECK(cudaGetLastError() == cudaErrorIllegalAddress);  // it does not go away
    CHECK(output[0] == 0);
  }
}

TEST_CASE("standin: a lost device ends all waiting") {
  const Fixture fixture;
  Counter never;
  const CudaStream stream, other;
  const CudaEvent event;
  REQUIRE(never.wait(stream, 1) == CUDA_SUCCESS);
  REQUIRE(cudaEventRecord(event, stream) == cudaSuccess);
  REQUIRE(cudaStreamWaitEvent(other, event) == cudaSuccess);
  std::thread loses([] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    standin::lose_device();
  });
  CHECK(cudaStreamSynchronize(other) == cudaErrorDevicesUnavailable);
  loses.join();
  CHECK(cudaEventQuery(event) == cudaErrorDevicesUnavailable);
  cudaStream_t more = nullptr;
  CHECK(cudaStreamCreateWithFlags(&more, cudaStreamNonBlocking) == cudaErrorDevicesUnavailable);
}

TEST_CASE("standin: copies take the time that their link needs") {
  const Fixture fixture({.h2d_gb_s = 1.0, .d2h_gb_s = 4.0, .latency_us = 100});
  const size_t bytes = 8 << 20;
  const CudaStream first, second;
  const CudaEvent start(cudaEventDefault), end(cudaEventDefault);
  const PinnedArray<std::byte> host(bytes);
  const DeviceArray<std::byte> device(bytes), more(bytes);
  const auto begin = std::chrono::steady_clock::now();
  REQUIRE(cudaEventRecord(start, first) == cudaSuccess);
  REQUIRE(cudaMemcpyAsync(device.data(), host.data(), bytes, cudaMemcpyHostToDevice, first) == cudaSuccess);
  REQUIRE(cudaEventRecord(end, first) == cudaSuccess);
  REQUIRE(cudaMemcpyAsync(more.data(), host.data(), bytes, cudaMemcpyHostToDevice, second) == cudaSuccess);
  first.synchronize();
  second.synchronize();
  CHECK(seconds_since(begin) > 0.016);  // they share the link
  float milliseconds = 0;
  REQUIRE(cudaEventElapsedTime(&milliseconds, start, end) == cudaSuccess);
  CHECK(milliseconds > 8);
  const auto back = std::chrono::steady_clock::now();
  REQUIRE(cudaMemcpyAsync(host.data(), device.data(), bytes, cudaMemcpyDeviceToHost, first) == cudaSuccess);
  first.synchronize();
  CHECK(seconds_since(back) > 0.002);
}

TEST_CASE("standin: no driver, an old driver, no device") {
  int version = -1, count = -1;
  {
    const Fixture fixture({.driver_version = 0});
    CHECK(cudaDriverGetVersion(&version) == cudaSuccess);
    CHECK(version == 0);
    CHECK(cudaGetDeviceCount(&count) == cudaErrorInsufficientDriver);
    CHECK(count == 0);
  }
  {
    const Fixture fixture({.driver_version = 12040});
    CHECK(cudaDriverGetVersion(&version) == cudaSuccess);
    CHECK(version == 12040);
    CHECK(cudaGetDeviceCount(&count) == cudaErrorInsufficientDriver);
  }
  const Fixture fixture({.devices = 0});
  CHECK(cudaGetDeviceCount(&count) == cudaErrorNoDevice);
  CHECK(cudaSetDevice(0) == cudaErrorNoDevice);
}

TEST_CASE("standin: the device describes itself") {
  const Fixture fixture({.device_bytes = 123 << 20, .compute_major = 9, .compute_minor = 0, .multiprocessors = 132});
  cudaDeviceProp properties;
  REQUIRE(cudaGetDeviceProperties(&properties, 0) == cudaSuccess);
  CHECK(properties.totalGlobalMem == 123 << 20);
  CHECK(properties.major == 9);
  CHECK(properties.multiProcessorCount == 132);
  CHECK(cudaGetDeviceProperties(&properties, 1) == cudaErrorInvalidDevice);
  int value = 0;
  CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess);
  CHECK(value == 9);
  CHECK(std::string(cudaGetErrorName(cudaErrorNotReady)) == "cudaErrorNotReady");
  CHECK(std::string(cudaGetErrorString(cudaErrorMemoryAllocation)) == "out of memory");
}

}  // namespace sluice::gpu
