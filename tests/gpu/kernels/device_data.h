// Data for kernels: arrays in device memory that end with their allocations, so that AddressSanitizer sees what goes
// beyond them on the stand-in, tables in mapped host memory, and one stream to run calls in. Nothing here needs the
// stand-in; the same tests run on a GPU.
#pragma once

#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "gpu/kernels/kernels.h"
#if __has_include(<sluice_standin/control.h>)
#include <sluice_standin/control.h>
#endif

namespace sluice::gpu::test {

inline cudaStream_t stream() {
  static cudaStream_t one = [] {
    cudaStream_t made = nullptr;
    REQUIRE(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking) == cudaSuccess);
    return made;
  }();
  return one;
}

inline void finish() { REQUIRE(cudaStreamSynchronize(stream()) == cudaSuccess); }

// n values of T, beginning `shift` bytes behind an aligned address.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t n, size_t shift = 0) : n_(n), shift_(shift) {
    REQUIRE(cudaMalloc(&memory_, n * sizeof(T) + shift + (n == 0)) == cudaSuccess);
  }
  explicit DeviceArray(std::span<const T> values, size_t shift = 0) : DeviceArray(values.size(), shift) { set(values); }
  explicit DeviceArray(const std::vector<T>& values, size_t shift = 0)
      : DeviceArray(std::span<const T>(values), shift) {}
  DeviceArray(DeviceArray&& other) noexcept : n_(other.n_), shift_(other.shift_), memory_(other.memory_) {
    other.memory_ = nullptr;
  }
  DeviceArray& operator=(DeviceArray&&) = delete;
  ~DeviceArray() {
    if (memory_ != nullptr) cudaFree(memory_);
  }

  T* data() const { return reinterpret_cast<T*>(static_cast<std::byte*>(memory_) + shift_); }
  size_t size() const { return n_; }
  void set(std::span<const T> values) {
    REQUIRE(values.size() == n_);
    if (n_ == 0) return;
    REQUIRE(cudaMemcpyAsync(data(), values.data(), n_ * sizeof(T), cudaMemcpyHostToDevice, stream()) == cudaSuccess);
    finish();
  }
  std::vector<T> get() const {
    std::vector<T> values(n_);
    if (n_ == 0) return values;
    REQUIRE(cudaMemcpyAsync(values.data(), data(), n_ * sizeof(T), cudaMemcpyDeviceToHost, stream()) == cudaSuccess);
    finish();
    return values;
  }

 private:
  size_t n_, shift_;
  void* memory_ = nullptr;
};

// A table that host and device read.
template <class T>
class Table {
 public:
  explicit Table(const std::vector<T>& values) {
    const size_t bytes = values.size() * sizeof(T);
    REQUIRE(cudaHostAlloc(&memory_, bytes + (bytes == 0), cudaHostAllocMapped) == cudaSuccess);
    if (bytes > 0) std::memcpy(memory_, values.data(), bytes);
  }
  Table(Table&& other) noexcept : memory_(other.memory_) { other.memory_ = nullptr; }
  Table& operator=(Table&&) = delete;
  ~Table() {
    if (memory_ != nullptr) cudaFreeHost(memory_);
  }
  T* data() const { return static_cast<T*>(memory_); }

 private:
  void* memory_ = nullptr;
};

// Scratch memory for attention calls; grid sizes as on a card of 8 SMs.
class Context {
 public:
  explicit Context(size_t scratch_bytes = 0) : scratch_(scratch_bytes) {}
  KernelContext get() const { return {8, scratch_.data(), scratch_.size()}; }

 private:
  DeviceArray<std::byte> scratch_;
};

// While this lives the stand-in sees to it that kernels which begin early do not copy from this memory before they wait
// for those before them.
class WrittenJustBefore {
 public:
#if __has_include(<sluice_standin/control.h>)
  ~WrittenJustBefore() { standin::allow_early(); }
  void add(const void* memory, uint64_t bytes) { standin::forbid_early(memory, bytes); }
#else
  void add(const void*, uint64_t) {}
#endif
};

// Whether kernels can copy whole rows here: the stand-in can, and cards since Hopper.
inline bool can_transfer() {
#if __has_include(<sluice_standin/control.h>)
  return true;
#else
  int major = 0;
  REQUIRE(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess);
  return major >= 9;
#endif
}

inline void run_call(const KernelCall& call, const KernelContext& context = {8, nullptr, 0}) {
  const Status status = run(stream(), call, context);
  REQUIRE_MESSAGE(status.ok(), status.message());
  finish();
}

// Runs a call whose result is n floats at `out`.
template <class Call>
std::vector<float> result_of(Call call, size_t n, const KernelContext& context = {8, nullptr, 0}) {
  const DeviceArray<float> out(n);
  call.out = out.data();
  run_call(call, context);
  return out.get();
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace sluice::gpu::test
