#include "tests/standin/runtime.h"

#include <cstdio>
#include <cstdlib>

namespace standin {
namespace {

constexpr int oldest_driver = CUDART_VERSION;

__thread cudaError_t last_error = cudaSuccess;

bool forbidden_in_capture(Call call) {
  switch (call) {
    case Call::malloc:
    case Call::free:
    case Call::host_register:
    case Call::host_unregister:
    case Call::host_alloc:
    case Call::free_host:
    case Call::device_synchronize: return true;
    default: return false;
  }
}

}  // namespace

Runtime& runtime() {
  static Runtime& only = *new Runtime;  // outlives every thread
  return only;
}

cudaError_t remember(cudaError_t result) {
  if (result != cudaSuccess && result != cudaErrorNotReady) last_error = result;
  return result;
}

cudaError_t Runtime::fault(Call call) {
  Fault& fault = faults[static_cast<int>(call)];
  if (++fault.calls != fault.fails_at) return cudaSuccess;
  return fault.error;
}

cudaError_t Runtime::enter(Call call) {
  const cudaError_t injected = fault(call);
  if (options.driver_version < oldest_driver) return cudaErrorInsufficientDriver;
  if (options.devices == 0) return cudaErrorNoDevice;
  if (failed != cudaSuccess) {
    while (running > 0) progress.wait(lock);
    acquire(&all_work);
    return failed;
  }
  if (injected != cudaSuccess) return injected;
  if (global_captures > 0 && forbidden_in_capture(call)) return cudaErrorStreamCaptureUnsupported;
  if (call != Call::get_device_count && call != Call::device_get_attribute && call != Call::get_device_properties &&
      call != Call::get_driver_entry_point) {
    has_context = true;
  }
  return cudaSuccess;
}

Memory Runtime::find(const void* address, size_t bytes) const {
  const auto at = reinterpret_cast<uintptr_t>(address);
  auto after = memory.upper_bound(at);
  if (after == memory.begin()) return {};
  const auto& [start, found] = *--after;
  return at + bytes <= start + found.bytes ? found : Memory{};
}

uint64_t Runtime::free_bytes() const {
  const uint64_t used = device_bytes + taken_bytes + (has_context ? options.context_bytes : 0);
  return used < options.device_bytes ? options.device_bytes - used : 0;
}

void Runtime::fail_device(cudaError_t error) {
  if (failed == cudaSuccess) failed = error;
  progress.notify_all();
}

void Runtime::add_error(const std::string& text) {
  std::fprintf(stderr, "stand-in: %s\n", text.c_str());
  errors.push_back({text});
}

void reset(const Options& options) {
  Quiet quiet;
  Runtime& state = runtime();
  Guard guard(state.lock);
  if (!state.memory.empty() || !state.streams.empty() || !state.events.empty() || !state.graphs.empty() ||
      !state.executables.empty()) {
    std::fprintf(stderr, "stand-in: reset with %zu pieces of memory, %zu streams, %zu events, %zu graphs alive\n",
                 state.memory.size(), state.streams.size(), state.events.size(),
                 state.graphs.size() + state.executables.size());
    std::abort();
  }
  state.abandoning = true;
  while (state.stream_threads > 0) state.progress.wait(state.lock);
  state.abandoning = false;
  acquire(&state.all_work);
  state.options = options;
  for (Fault& fault : state.faults) fault = {};
  state.failed = cudaSuccess;
  state.has_context = false;
  state.taken_bytes = 0;
  state.written_by_streams.clear();
  state.errors.clear();
  state.to_device = state.to_host = {};
  last_error = cudaSuccess;
}

void fail(Call call, uint64_t nth, cudaError_t error) {
  Quiet quiet;
  Guard guard(runtime().lock);
  Fault& fault = runtime().faults[static_cast<int>(call)];
  fault.fails_at = fault.calls + nth;
  fault.error = error;
}

uint64_t calls(Call call) {
  Quiet quiet;
  Guard guard(runtime().lock);
  return runtime().faults[static_cast<int>(call)].calls;
}

void lose_device() {
  Quiet quiet;
  Guard guard(runtime().lock);
  runtime().fail_device(cudaErrorDevicesUnavailable);
}

void take_memory(uint64_t bytes) {
  Quiet quiet;
  Guard guard(runtime().lock);
  runtime().taken_bytes = bytes;
}

Live live() {
  Quiet quiet;
  Runtime& state = runtime();
  Guard guard(state.lock);
  return {state.device_bytes,   state.registered_bytes, state.host_bytes,
          state.streams.size(), state.events.size(),    state.graphs.size() + state.executables.size()};
}

std::vector<std::string> errors() {
  Quiet quiet;
  Guard guard(runtime().lock);
  std::vector<std::string> texts;
  for (const ErrorText& error : runtime().errors) texts.push_back(error.text);
  return texts;
}

}  // namespace standin

using standin::remember;
using standin::runtime;

cudaError_t cudaPeekAtLastError() {
  standin::Quiet quiet;
  standin::Guard guard(runtime().lock);
  return runtime().failed != cudaSuccess ? runtime().failed : standin::last_error;
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  standin::last_error = cudaSuccess;
  return error;
}
