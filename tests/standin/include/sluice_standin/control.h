// What a test can turn on the stand-in for CUDA, and read from it. Nothing here exists on a GPU.
#pragma once

#include <cuda_runtime.h>

#include <string>
#include <vector>

namespace standin {

struct Options {
  uint64_t device_bytes = 1ull << 30;
  uint64_t context_bytes = 0;  // device memory that the first call that needs a context takes
  int devices = 1;
  int driver_version = 13000;  // 0: no driver
  int compute_major = 8, compute_minor = 9;
  int multiprocessors = 4;
  uint64_t host_register_bytes = UINT64_MAX;  // how much may be page-locked, by cudaHostRegister and cudaHostAlloc
  bool host_pointers = true;                  // registered memory has the same address on the device
  bool memory_operations = true;              // cuStreamWaitValue64, cuStreamWriteValue64
  // Copies take as long as on such a link, shared by all streams of one direction; 0: as fast as they go.
  double h2d_gb_s = 0, d2h_gb_s = 0;
  double latency_us = 0;  // of each copy and launch
};

// Back to a fresh process: waits for the work of all streams, forgets faults, errors and the lost device. All memory,
// streams, events and graphs must have been given back, else the process ends: call live() before.
void reset(const Options& options = {});

// Every function of the runtime that can fail, and what work itself can fail at.
enum class Call {
  get_device_count,
  set_device,
  device_get_attribute,
  get_device_properties,
  get_driver_entry_point,
  device_synchronize,
  mem_get_info,
  malloc,
  free,
  host_register,
  host_unregister,
  host_alloc,
  free_host,
  host_get_device_pointer,
  stream_create,
  stream_destroy,
  stream_synchronize,
  stream_query,
  stream_wait_event,
  memcpy_async,
  memset_async,
  event_create,
  event_destroy,
  event_record,
  event_query,
  event_synchronize,
  event_elapsed_time,
  begin_capture,
  end_capture,
  graph_instantiate,
  graph_launch,
  graph_exec_destroy,
  graph_destroy,
  func_set_attribute,
  launch,
  wait_value,
  write_value,
  run_kernel,  // not a call: a kernel faults while it runs; every call fails from then on
  run_copy,    // likewise, a copy
};
inline constexpr int n_calls = static_cast<int>(Call::run_copy) + 1;

// The nth call from now (1: the next one) fails, and only that one. What gives something back gives it back even so.
void fail(Call call, uint64_t nth, cudaError_t error);
// How often it was called since reset(), for loops over every N.
uint64_t calls(Call call);

// The device falls off the bus: waiting and later work is dropped, every call fails.
void lose_device();
// Another process takes device memory (and gives it back, with 0).
void take_memory(uint64_t bytes);

// From now on an access to this part of an allocation is an error in a build with AddressSanitizer, or is none any
// more: for what an arena has not given out.
void forbid(const void* memory, uint64_t bytes);
void allow(const void* memory, uint64_t bytes);

// From now on a kernel that begins early must not start copies to shared memory from here before it waits for those
// before it, as if one of these wrote it; allow_early() ends that for all such memory.
void forbid_early(const void* memory, uint64_t bytes);
void allow_early();

// What is held now. Of a lost device too, until it is given back.
struct Live {
  uint64_t device_bytes, registered_bytes, host_bytes;
  uint64_t streams, events, graphs;
  bool operator==(const Live&) const = default;
};
Live live();

// What kernels did wrong since reset(): divergent barriers and collectives, misaligned accesses, each one line with
// kernel, block, file and line. They go to stderr too.
std::vector<std::string> errors();

}  // namespace standin
