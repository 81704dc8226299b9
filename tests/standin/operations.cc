// Copies, fills, kernels and memory operations.
#include <sluice_standin/enqueue.h>

#include <cstdlib>
#include <cstring>

#include "tests/standin/stream.h"

namespace standin {
namespace {

cudaError_t fault_of_work(Call call) {
  Guard guard(runtime().lock);
  return runtime().fault(call);
}

void wait_latency() {
  const double latency_us = runtime().options.latency_us;
  if (latency_us > 0) sleep_until_ns(now_ns() + static_cast<uint64_t>(latency_us * 1e3));
}

// When a copy that starts now is through the link.
uint64_t end_on_link(Link& link, size_t bytes, double gb_s) {
  if (gb_s <= 0) return 0;
  Guard guard(runtime().lock);
  const uint64_t now = now_ns();
  const uint64_t start = now > link.free_at_ns ? now : link.free_at_ns;
  link.free_at_ns = start + static_cast<uint64_t>(static_cast<double>(bytes) / gb_s);
  return link.free_at_ns;
}

class CopyOperation : public Operation {
 public:
  CopyOperation(void* to, const void* from, size_t bytes, cudaMemcpyKind kind)
      : to_(to), from_(from), bytes_(bytes), kind_(kind) {}

  cudaError_t run(CUstream_st&) override {
    if (const cudaError_t failed = fault_of_work(Call::run_copy); failed != cudaSuccess) return failed;
    Runtime& state = runtime();
    uint64_t end = 0;
    if (kind_ == cudaMemcpyHostToDevice) end = end_on_link(state.to_device, bytes_, state.options.h2d_gb_s);
    if (kind_ == cudaMemcpyDeviceToHost) end = end_on_link(state.to_host, bytes_, state.options.d2h_gb_s);
    wait_latency();
    memcpy(to_, from_, bytes_);  // the sanitizers see this one
    if (end > 0) sleep_until_ns(end);
    return cudaSuccess;
  }

 private:
  void* to_;
  const void* from_;
  size_t bytes_;
  cudaMemcpyKind kind_;
};

class FillOperation : public Operation {
 public:
  FillOperation(void* memory, int value, size_t bytes) : memory_(memory), value_(value), bytes_(bytes) {}
  cudaError_t run(CUstream_st&) override {
    memset(memory_, value_, bytes_);
    return cudaSuccess;
  }

 private:
  void* memory_;
  int value_;
  size_t bytes_;
};

class KernelOperation : public Operation {
 public:
  KernelOperation(const Kernel& kernel, void* arguments) : kernel_(kernel), arguments_(arguments) {
    kernel_.arguments = arguments;
  }
  ~KernelOperation() override { free(arguments_); }

  cudaError_t run(CUstream_st& stream) override {
    if (const cudaError_t failed = fault_of_work(Call::run_kernel); failed != cudaSuccess) return failed;
    wait_latency();
    const std::string failure = stream.grid->run(kernel_);
    if (failure.empty()) return cudaSuccess;
    Quiet quiet;
    Guard guard(runtime().lock);
    runtime().add_error(failure);
    return cudaErrorLaunchFailure;
  }

 private:
  Kernel kernel_;
  void* arguments_;
};

bool satisfied(uint64_t found, uint64_t value, unsigned kind) {
  switch (kind) {
    case CU_STREAM_WAIT_VALUE_GEQ: return static_cast<int64_t>(found - value) >= 0;
    case CU_STREAM_WAIT_VALUE_EQ: return found == value;
    case CU_STREAM_WAIT_VALUE_AND: return (found & value) != 0;
    default: return ~(found | value) != 0;
  }
}

class WaitValueOperation : public Operation {
 public:
  WaitValueOperation(const uint64_t* counter, uint64_t value, unsigned kind)
      : counter_(counter), value_(value), kind_(kind) {}

  cudaError_t run(CUstream_st&) override {
    for (uint32_t polls = 0; !satisfied(load_unseen(counter_), value_, kind_); ++polls) {
      if (given_up()) return cudaSuccess;
      if (polls > 20) sleep_until_ns(now_ns() + poll_ns);
    }
    // What another stream wrote brings no order with it, as far as CUDA knows.
    if (!written_by_stream(load_unseen(counter_))) load_seen(counter_);
    return cudaSuccess;
  }

 private:
  static constexpr uint64_t poll_ns = 20'000;

  static bool given_up() {
    Guard guard(runtime().lock);
    return runtime().failed != cudaSuccess || runtime().abandoning;
  }
  bool written_by_stream(uint64_t found) const {
    Quiet quiet;
    Guard guard(runtime().lock);
    const auto written = runtime().written_by_streams.find(counter_);
    return written != runtime().written_by_streams.end() && written->second == found;
  }

  const uint64_t* counter_;
  uint64_t value_;
  unsigned kind_;
};

class WriteValueOperation : public Operation {
 public:
  WriteValueOperation(uint64_t* counter, uint64_t value) : counter_(counter), value_(value) {}
  cudaError_t run(CUstream_st&) override {
    {
      Quiet quiet;
      Guard guard(runtime().lock);
      runtime().written_by_streams[counter_] = value_;
    }
    store_seen(counter_, value_);
    return cudaSuccess;
  }

 private:
  uint64_t* counter_;
  uint64_t value_;
};

// Both ends must be where the kind says; Default is told by where they are.
cudaError_t resolve(const Runtime& state, const void* to, const void* from, size_t bytes, cudaMemcpyKind& kind) {
  const bool to_device = state.find(to, bytes).kind == MemoryKind::device;
  const bool from_device = state.find(from, bytes).kind == MemoryKind::device;
  const cudaMemcpyKind found = to_device ? (from_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice)
                                         : (from_device ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost);
  if (kind == cudaMemcpyDefault) kind = found;
  return kind == found ? cudaSuccess : cudaErrorInvalidValue;
}

bool pageable(const Runtime& state, const void* memory, size_t bytes) {
  return state.find(memory, bytes).kind == MemoryKind::unknown;
}

bool valid(const Kernel& kernel) {
  const uint32_t threads = kernel.block_x * kernel.block_y;
  return threads > 0 && threads <= 1024 && threads % 32 == 0 && kernel.grid_x > 0 && kernel.grid_x <= INT32_MAX &&
         kernel.grid_y > 0 && kernel.grid_y <= UINT16_MAX && kernel.grid_z > 0 && kernel.grid_z <= UINT16_MAX;
}

CUresult memory_operation(Call call, CUstream stream, CUdeviceptr address,
                          Ref<Operation> (*make)(uint64_t*, uint64_t, unsigned), uint64_t value, unsigned flags) {
  return static_cast<CUresult>(api(call, [&](Runtime& state) {
    auto* counter = reinterpret_cast<uint64_t*>(address);
    if (!state.options.memory_operations) return cudaErrorNotSupported;
    if (address % 8 != 0 || pageable(state, counter, 8)) return cudaErrorInvalidValue;
    return enqueue(state, stream, make(counter, value, flags));
  }));
}

}  // namespace

CUresult wait_value(CUstream stream, CUdeviceptr address, cuuint64_t value, unsigned flags) {
  const auto make = [](uint64_t* counter, uint64_t v, unsigned kind) {
    return Ref<Operation>(new WaitValueOperation(counter, v, kind));
  };
  if (flags > CU_STREAM_WAIT_VALUE_AND) return CUDA_ERROR_NOT_SUPPORTED;
  return memory_operation(Call::wait_value, stream, address, make, value, flags);
}

CUresult write_value(CUstream stream, CUdeviceptr address, cuuint64_t value, unsigned flags) {
  const auto make = [](uint64_t* counter, uint64_t v, unsigned) {
    return Ref<Operation>(new WriteValueOperation(counter, v));
  };
  if (flags != CU_STREAM_WRITE_VALUE_DEFAULT) return CUDA_ERROR_NOT_SUPPORTED;
  return memory_operation(Call::write_value, stream, address, make, value, flags);
}

cudaError_t launch(cudaStream_t stream, const char* name, const LaunchDims& dims, void (*call)(const void*),
                   const void* arguments, size_t bytes) {
  return api(Call::launch, [&](Runtime& state) {
    const Kernel kernel = {name,         dims.grid_x,       dims.grid_y, dims.grid_z, dims.block_x,
                           dims.block_y, dims.shared_bytes, dims.early,  call,        nullptr};
    if (!valid(kernel)) return cudaErrorInvalidConfiguration;
    if (dims.shared_bytes > max_shared_bytes) return cudaErrorInvalidValue;
    void* copy = nullptr;
    if (posix_memalign(&copy, 16, bytes) != 0) return cudaErrorMemoryAllocation;
    memcpy(copy, arguments, bytes);
    return enqueue(state, stream, Ref<Operation>(new KernelOperation(kernel, copy)));
  });
}

}  // namespace standin

using namespace standin;

// From and to pageable memory a copy is over when the call returns, as CUDA has it.
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  bool wait = false;
  const cudaError_t result = api(Call::memcpy_async, [&](Runtime& state) {
    if (!alive(state, stream)) return cudaErrorInvalidResourceHandle;
    if (bytes == 0) return cudaSuccess;
    if (const cudaError_t wrong = resolve(state, to, from, bytes, kind); wrong != cudaSuccess) return wrong;
    wait = pageable(state, to, bytes) || pageable(state, from, bytes);
    if (wait && stream->capture) return cudaErrorStreamCaptureUnsupported;
    return enqueue(state, stream, Ref<Operation>(new CopyOperation(to, from, bytes, kind)));
  });
  return result == cudaSuccess && wait ? cudaStreamSynchronize(stream) : result;
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  return api(Call::memset_async, [&](Runtime& state) {
    if (!alive(state, stream)) return cudaErrorInvalidResourceHandle;
    if (bytes == 0) return cudaSuccess;
    if (pageable(state, memory, bytes)) return cudaErrorInvalidValue;
    return enqueue(state, stream, Ref<Operation>(new FillOperation(memory, value, bytes)));
  });
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  return api(Call::func_set_attribute, [&](Runtime&) {
    if (function == nullptr) return cudaErrorInvalidDeviceFunction;
    const bool fits = attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value <= max_shared_bytes;
    return fits ? cudaSuccess : cudaErrorInvalidValue;
  });
}
