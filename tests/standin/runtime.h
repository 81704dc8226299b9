// The state behind the stand-in's CUDA functions.
//
// One lock guards all of it, streams and events too. Each CUDA function is api() or give_back() around what it does;
// they count the call, let it fail where a test wants that or the device has failed, and keep the last error. What
// they touch is hidden from ThreadSanitizer (Quiet), and what CUDA promises about order is told by release() and
// acquire() at the places that promise it.
#pragma once

#include <sluice_standin/control.h>

#include <map>
#include <set>

#include "tests/standin/sanitizers.h"
#include "tests/standin/sync.h"

namespace standin {

enum class MemoryKind { unknown, device, allocated_host, registered_host };
struct Memory {
  size_t bytes = 0;
  MemoryKind kind = MemoryKind::unknown;
};
struct Fault {
  uint64_t calls = 0;
  uint64_t fails_at = 0;  // of `calls`; 0: never
  cudaError_t error = cudaSuccess;
};
struct Link {
  uint64_t free_at_ns = 0;
};
struct ErrorText {
  std::string text;
};

class Runtime {
 public:
  Lock lock;
  Wakeup progress;  // some work has ended, or the device has failed

  Options options;
  Fault faults[n_calls];
  cudaError_t failed = cudaSuccess;  // the device: every call fails with this
  Clock all_work;                    // after each operation; taken up only once the device has failed
  uint32_t running = 0;              // operations under way
  bool abandoning = false;           // reset() waits for streams to end
  std::map<uintptr_t, Memory> memory;
  std::set<const struct ::CUstream_st*> streams;
  std::set<const struct ::CUevent_st*> events;
  std::set<const struct ::CUgraph_st*> graphs;
  std::set<const struct ::CUgraphExec_st*> executables;
  std::map<const uint64_t*, uint64_t, std::less<>> written_by_streams;  // last value of each counter
  uint64_t taken_bytes = 0, device_bytes = 0, registered_bytes = 0, host_bytes = 0;
  uint64_t global_captures = 0;
  uint64_t stream_threads = 0;
  bool has_context = false;
  Link to_device, to_host;
  std::vector<ErrorText> errors;

  // With the lock held: what a call of this kind fails with before it does anything. With a failed device that is
  // told only when nothing runs any more, so that what it used can be freed.
  cudaError_t enter(Call call);
  // The fault of something that is not a call.
  cudaError_t fault(Call call);
  // The allocation that [address, address + bytes) lies in.
  Memory find(const void* address, size_t bytes) const;
  uint64_t free_bytes() const;
  // The device stops working.
  void fail_device(cudaError_t error);
  void add_error(const std::string& text);
};
Runtime& runtime();

// The calling thread's last error, and what it returns.
cudaError_t remember(cudaError_t result);

// body() with the lock held, unless the call fails before.
template <class Body>
cudaError_t api(Call call, Body body) {
  Quiet quiet;
  Guard guard(runtime().lock);
  cudaError_t result = runtime().enter(call);
  if (result == cudaSuccess) result = body(runtime());
  return remember(result);
}
// body() in any case; what gives back does so even where it fails.
template <class Body>
cudaError_t give_back(Call call, Body body) {
  Quiet quiet;
  Guard guard(runtime().lock);
  const cudaError_t failed = runtime().enter(call);
  const cudaError_t result = body(runtime());
  return remember(failed != cudaSuccess ? failed : result);
}

}  // namespace standin
