// What an Engine tells about a model, a machine, a plan and a run, as plain data to print.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace sluice {

struct TensorReport {
  std::string name, type;
  std::vector<uint64_t> shape;  // in the file's order, fastest dimension first
  uint64_t bytes = 0, offset = 0;
  std::string file;
};

struct ModelReport {
  std::string path, architecture, name;
  std::vector<std::pair<std::string, uint64_t>> files;        // path, bytes
  std::vector<std::pair<std::string, std::string>> metadata;  // key, value as text, long arrays shortened
  std::vector<TensorReport> tensors;
  uint64_t tensor_bytes = 0, parameters = 0;
};

// Where a matrix of a layer will live: bytes that stay in memory, and bytes read again for every step.
struct PlacementReport {
  std::string tensor, type, device;
  uint64_t bytes_resident = 0, bytes_streamed = 0;
  uint32_t tiles_resident = 0, tiles_streamed = 0;
};
struct LayerReport {
  std::string name;  // "embed", "0", "1", …, "head"
  std::vector<PlacementReport> tensors;
};

struct MachineReport {
  std::string cpu, isa;
  uint32_t threads = 0;
  double memory_gb_s = 0, disk_gb_s = 0;
};

struct PlanReport {
  std::string model, numerics_hash, precision, kv_type;
  uint32_t context = 0, batch = 0;
  uint64_t ram_budget = 0;
  std::vector<std::pair<std::string, uint64_t>> memory;  // what the budget is given to
  std::vector<LayerReport> layers;
  uint64_t resident_bytes = 0;        // weights that stay in memory
  uint64_t disk_bytes_per_token = 0;  // read again for every decoded token
  uint64_t kv_bytes = 0, kv_spill_bytes = 0;
  double decode_tok_s = 0, prefill_tok_s = 0;
  uint32_t prefill_tokens = 0;
  std::string bottleneck;
  MachineReport machine;
};

struct TierReport {
  std::string name;             // "ram", "disk"
  uint64_t bytes_resident = 0;  // held in it now
  uint64_t bytes_read = 0;      // from it, since the engine was opened
  double gb_s = 0;              // while it was being read
  double roofline_gb_s = 0;     // measured on this machine
};

struct MemoryReport {
  uint64_t ram_budget = 0, ram_peak = 0, rss_peak = 0;
  uint64_t disk_bytes_read = 0, disk_bytes_written = 0;  // payload
};

}  // namespace sluice
