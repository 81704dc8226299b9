// What a machine has and how fast it is, measured, and what would make it faster.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "sluice/status.h"

namespace sluice {

struct ExamineOptions {
  std::string path;          // a file or directory on the disk to measure; empty: the user's cache directory
  std::string model;         // a model whose own products are timed too; may be empty
  std::string machine_file;  // where the rates are written; empty: where plans look for them
  uint32_t threads = 0;      // 0: one for each core that may be used
  std::function<void(std::string_view)> progress;  // one line for each thing that is measured
};

struct CpuHealth {
  std::string name, isa;
  uint32_t cores = 0, hardware_threads = 0, threads = 0, numa_nodes = 0;
  uint64_t l1d_bytes = 0, l2_bytes = 0, l3_bytes = 0;  // L3: of all usable cores together; 0: not known
  double quota = 0;                                    // CPUs that a cgroup grants; 0: no limit
  std::string prompts = {};  // the library that multiplies prompts, with its kernel; empty: our own kernels
};

struct MemoryHealth {
  uint64_t total = 0, available = 0;   // bytes
  std::string transparent_huge_pages;  // "always", "madvise", "never"; empty: the kernel has none
  uint64_t reserved_huge_pages = 0;    // pages of huge_page_bytes
  uint64_t huge_page_bytes = 0;
  uint64_t memlock = 0;                   // bytes that may be locked; UINT64_MAX: no limit
  double gb_s = 0, beside_disk_gb_s = 0;  // products reading weights: alone, and while the disk is read
};

struct DiskHealth {
  std::string path, store;  // what was measured, and how it was read
  bool io_uring = false, direct = false;
  std::string why_not;                                  // of the first of the two that is false
  uint32_t offset_alignment = 0, memory_alignment = 0;  // that direct I/O wants; 0: the kernel does not tell
  double read_gb_s = 0, beside_compute_gb_s = 0, page_cache_gb_s = 0, write_gb_s = 0;
};

struct KernelHealth {
  std::string type;
  double fast_gb_s = 0, fast_gflops = 0, f32_gb_s = 0, f32_gflops = 0;
};

// Of the GPU that this build may use.
struct GpuHealth {
  bool built = false, available = false;
  std::string reason;
  std::vector<std::string> devices;
};

struct Finding {
  std::string what, remedy;
};

struct HealthReport {
  CpuHealth cpu;
  MemoryHealth memory;
  DiskHealth disk;
  GpuHealth gpu;
  std::vector<KernelHealth> kernels;
  double call_us = 0;             // of one kernel call beyond its bytes
  std::vector<Finding> findings;  // what is wrong; empty if all is well
  std::string machine_file;       // that was written; empty if there is no place for it
};

// Takes some ten seconds. A file of 256 MiB is written to the directory and removed, unless a file is
// given to be read.
Result<HealthReport> examine(const ExamineOptions& options);

}  // namespace sluice
