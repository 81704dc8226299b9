// Plan: what is computed how (Numerics) and what lies where and moves when (Movement).
//
// Equal Numerics give equal bits, whatever Movement does. Both are plain data that can be printed and
// compared; nothing here executes.
#pragma once

#include <string>
#include <vector>

#include "core/machine.h"
#include "offload/plan/weight_map.h"
#include "offload/plan/workspace.h"

namespace sluice::plan {

struct Numerics {
  Compute compute = Compute::fast;
  KvType kv_type = KvType::f16;
  uint32_t page_tokens = 64;           // attention is partitioned at multiples of this
  std::vector<std::string> op_device;  // by op: id of the device that computes it
  std::string hash() const;            // 16 hex digits
};

struct Movement {
  WeightMap weights;
  std::vector<bool> resident;   // by block
  uint64_t resident_bytes = 0;  // slots of resident blocks
  uint64_t streamed_bytes = 0;  // payload read again in every pass
  uint64_t staging_bytes = 0;   // slots through which the others pass
  uint64_t ahead_bytes = 0;     // how far reads run ahead of use
  bool table_resident = false;  // embedding rows come from memory

  // KV, in pages of one layer and kind
  uint64_t page_slot_bytes = 0;
  uint32_t pages_per_sequence = 0;  // of one layer and kind at full context
  uint32_t kv_pages = 0;            // slots for pages, all together
  uint32_t kv_kept_pages = 0;       // full pages that may stay; beyond these they go to disk
  uint32_t kv_group_pages = 0;      // pages of a layer attended to at once when some come from disk; 0: all stay
  uint64_t spill_bytes = 0;         // the most that may lie in the spill file
};

struct NamedBytes {
  std::string name;
  uint64_t bytes = 0;
};

struct Prediction {
  double decode_tok_s = 0, prefill_tok_s = 0;
  uint32_t prefill_tokens = 0;       // of the prompt that prefill_tok_s is for
  double compute_s = 0, disk_s = 0;  // of one decoded token, before overlap
  std::string bottleneck;            // "disk", "memory", "compute"
};

struct Plan {
  Numerics numerics;
  Movement movement;
  WorkspaceShape workspace;
  uint32_t context = 0;
  uint64_t ram_budget = 0;
  std::vector<NamedBytes> memory;  // where the budget goes, adding up to at most ram_budget
  uint64_t disk_bytes_per_token = 0;
  Prediction prediction;

  uint64_t weight_arena_bytes() const { return movement.resident_bytes + movement.staging_bytes; }
  uint64_t kv_arena_bytes() const { return movement.kv_pages * movement.page_slot_bytes; }
};

}  // namespace sluice::plan
