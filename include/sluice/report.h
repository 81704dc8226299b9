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

// Rows of a matrix from `row` on that another device computes; none where `device` is empty.
struct SplitReport {
  uint32_t row = 0;
  std::string device = {};
};

// Where a matrix of a layer will live: bytes that stay in the memory of the device that decodes with them, and bytes
// that come there again for every step.
struct PlacementReport {
  std::string tensor, type, device;
  uint64_t bytes_resident = 0, bytes_streamed = 0;
  uint32_t tiles_resident = 0, tiles_streamed = 0;
  std::string prompt_device;  // that computes with it in prompts
  uint32_t rows = 0;
  SplitReport split = {}, prompt_split = {};  // the rows that are not at `device`, at `prompt_device`
};
struct LayerReport {
  std::string name;  // "embed", "0", "1", …, "head"
  std::vector<PlacementReport> tensors;
  std::string kv_device;            // whose memory holds its KV; empty where it has none
  std::vector<uint64_t> held = {};  // bytes of its weights, by device of PlanReport::devices
  double decode_ms = 0;             // predicted, of one token: kernels and hand-overs
  uint32_t kv_near = 0;             // of a session: tokens whose KV is there, those behind with the CPU; 0: all there
};

struct MachineReport {
  std::string cpu, isa;
  uint32_t threads = 0;
  std::string no_gpu;  // one line: why no GPU can be used; or empty
  double memory_gb_s = 0, disk_gb_s = 0;
  std::string name = {};     // of the machine, or of the file that describes it
  std::string prompts = {};  // what multiplies the CPU's prompts beside its own kernels: a library; or empty
};

// A device of a plan with its memory, and what one decoded token takes there.
struct DeviceReport {
  std::string name;    // "cpu", "gpu 0"
  std::string memory;  // "ram", "vram"
  uint64_t budget = 0, weight_bytes = 0, kv_bytes = 0, staging_bytes = 0;
  uint64_t lent_bytes = 0;  // of weight_bytes: in the workspace, until a step of more tokens than small_step
  uint32_t small_step = 0;
  uint64_t computed_bytes = 0;  // weights that its kernels read
  uint64_t streamed_bytes = 0;  // of them, those that come over the link
  double memory_gb_s = 0, link_gb_s = 0;
  std::vector<std::pair<std::string, uint64_t>> given = {};  // what the budget is given to
};

struct PromptReport {
  uint32_t n = 0;
  double tok_s = 0;
};

// What more of something would give.
struct HelpReport {
  std::string what;  // "8 GiB more VRAM"
  double decode_tok_s = 0;
};

struct PlanReport {
  std::string model, numerics_hash, precision, kv_type;
  uint32_t context = 0, batch = 0;
  uint32_t short_prompt = 0;  // prompts of at most so many tokens are computed where decoding is
  uint64_t ram_budget = 0;
  std::vector<std::pair<std::string, uint64_t>> memory;  // what the budget is given to
  std::vector<LayerReport> layers;
  uint64_t resident_bytes = 0;        // weights that stay in memory
  uint64_t disk_bytes_per_token = 0;  // read again for every decoded token
  uint64_t kv_bytes = 0, kv_spill_bytes = 0;
  double decode_tok_s = 0, prefill_tok_s = 0;
  uint32_t prefill_tokens = 0;
  std::string bottleneck;       // what a token waits for most: "RAM", "PCIe", "VRAM", "compute", "hand-overs", "disk"
  double bottleneck_share = 0;  // part of the token's time that it is busy
  MachineReport machine;
  std::vector<DeviceReport> devices = {};  // the CPU first
  std::vector<PromptReport> prefill = {};
  uint32_t hand_overs_per_token = 0;
  std::vector<HelpReport> helps = {};  // the best first; only of Engine::plan
};

struct TierReport {
  std::string name;             // "ram", "disk", "vram", "pcie"
  uint64_t bytes_resident = 0;  // held in it now
  uint64_t bytes_read = 0;      // from it, since the engine was opened
  double gb_s = 0;              // while it was being read; of vram and pcie known in traced runs only
  double roofline_gb_s = 0;     // measured on this machine
};

// A lane of a trace during a period: a device's kernels, the copies one way over its link, the disk.
struct LaneReport {
  std::string name;    // "cpu", "gpu 0", "gpu 0 h2d", "gpu 0 d2h", "disk"
  double busy_s = 0;   // at least one span of it was under way
  uint64_t bytes = 0;  // of the spans that ended in the period
  double gb_s = 0;     // while it was busy
};

// A part of a traced run: "load", until the first step; then steps of prompts ("prompt") and of up to 16 tokens
// ("decode"), each from its begin to that of the next. Kernels of any device come before all waiting, and where two
// paths were at work while no kernel was, the disk comes before the link. `seconds` is the sum of the five below it.
struct PeriodReport {
  std::string name;
  uint32_t steps = 0;
  double seconds = 0;
  double computing_s = 0;  // a kernel was running
  double disk_s = 0;       // waiting for the disk: none was, and a read or write was under way
  double link_s = 0;       // waiting for the link: likewise, a copy between memories
  double host_s = 0;       // nothing of these, in a step: hand-overs, launching
  double between_s = 0;    // no kernel and no step: sampling, printing, the caller
  std::vector<LaneReport> lanes = {};
};

// Where the time of a traced run went, so far. Without a trace there are no periods.
struct StallReport {
  std::vector<PeriodReport> periods;
  uint64_t dropped_spans = 0;  // with which the above would be more exact, or go on
};

struct MemoryReport {
  uint64_t ram_budget = 0, ram_peak = 0, rss_peak = 0;
  uint64_t disk_bytes_read = 0, disk_bytes_written = 0;  // payload
};

}  // namespace sluice
