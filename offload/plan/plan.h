// Plan: what is computed how (Numerics) and what lies where and moves when (Movement).
//
// A site is a device with the memory it has: site 0 is the CPU with the host's memory, the others are
// accelerators. Each op has a site for each placement, and a placement serves steps of up to so many tokens:
// what is best for one token is seldom best for a prompt.
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

inline constexpr uint8_t host_site = 0;

// An FFN that two sites compute at once: rows of its gate and up from `row` on, where a tile of each begins, and their
// activation, at `site`, which hands them over to the op's own site; that has the rows before and all of down.
struct Split {
  uint32_t row = 0;  // 0: the op is not split
  uint8_t site = host_site;
  bool operator==(const Split&) const = default;
};

// Which site computes each op, in steps of a kind.
struct Placement {
  std::vector<uint8_t> op_site;  // by op
  std::vector<Split> splits;     // by op; or empty: none is split
  Split split(size_t op) const { return op < splits.size() ? splits[op] : Split(); }
  bool computes(uint8_t site) const;   // some op, or rows of one
  bool is_all_at(uint8_t site) const;  // no other one computes anything
  bool operator==(const Placement&) const = default;
};

// The rows of a matrix of op `op` that `site` computes: all, none, or a part where the op is split.
Rows rows_at(const Graph& graph, const Placement& placement, size_t op, TensorId matrix, uint8_t site);
// Of a split op: rows that its sites divide.
uint32_t divided_rows(const Graph& graph, size_t op);
// Where an FFN may be split: rows at which tiles of its gate and of its up begin. Empty for other ops.
std::vector<uint32_t> split_rows(const Graph& graph, const WeightMap& weights, size_t op);

inline constexpr uint32_t all_pages = UINT32_MAX;

// Of the cells that n_tokens behind `depth` others see, themselves included, which part is among the first near_tokens
// of their sequence.
double near_share(uint64_t near_tokens, uint32_t depth, uint32_t n_tokens);

// Kernels for decoding are for so many tokens at most.
inline constexpr uint32_t most_short_prompt = 16;

struct Numerics {
  Compute compute = Compute::fast;
  KvType kv_type = KvType::f16;
  uint32_t page_tokens = 64;       // attention is partitioned at multiples of this
  std::vector<std::string> sites;  // ids of their devices, the host's first
  std::vector<uint8_t> kv_site;    // by layer: where its KV lies, and so its AttentionOp in every placement
  // Of the KV of layers that an accelerator attends to: so many pages of a sequence lie with it, those behind with the
  // host. When decoding the host attends to these meanwhile, and the accelerator merges what both have found; for
  // prompts they pass through the accelerator's memory, group by group.
  uint32_t near_pages = all_pages;
  Placement decode, prompt;                   // for steps that decode (or verify), and for those of a prompt
  uint32_t short_prompt = most_short_prompt;  // prompts of at most so many tokens are computed as decoding is
  std::vector<std::string> libraries;         // by site: what else than our kernels computes there, with its version
  const Placement& placement(bool is_prompt) const { return is_prompt ? prompt : decode; }
  bool has_far_pages() const { return near_pages != all_pages; }
  uint64_t near_tokens() const { return uint64_t{near_pages} * page_tokens; }
  double near_share(uint32_t depth, uint32_t n_tokens) const {
    return plan::near_share(near_tokens(), depth, n_tokens);
  }
  std::string hash() const;  // 16 hex digits
};

struct NamedBytes {
  std::string name;
  uint64_t bytes = 0;
};

// What a site holds of a model, and what passes through its memory.
struct Holding {
  uint64_t budget = 0;             // --ram, --vram
  std::vector<bool> resident;      // by block: a copy stays. The host's also feed the other sites
  std::vector<bool> lent;          // by block, or empty: a copy stays but for large steps (Movement::small_step)
  uint64_t resident_bytes = 0;     // slots of resident blocks
  uint64_t staging_bytes = 0;      // slots through which others pass
  uint64_t ahead_bytes = 0;        // how far reads run ahead of use
  uint32_t kv_pages = 0;           // slots for pages, all together
  uint32_t kv_kept_pages = 0;      // full pages that may stay; beyond these they go to disk
  uint32_t kv_group_pages = 0;     // pages of a layer attended to at once when some come from disk; 0: all stay
  uint64_t scratch_bytes = 0;      // that the device's kernels need
  std::vector<NamedBytes> memory;  // where the budget goes, adding up to at most that

  uint64_t weight_arena_bytes() const { return resident_bytes + staging_bytes; }
  bool lends(size_t block) const { return block < lent.size() && lent[block]; }
  bool stays(size_t block, bool large) const { return resident[block] || (!large && lends(block)); }
};

struct Movement {
  WeightMap weights;
  std::vector<Holding> sites;   // as Numerics::sites
  bool table_resident = false;  // embedding rows come from memory
  // Steps of more tokens than this are large. What only these need of an accelerator's workspace holds weights
  // meanwhile, which give way and come back (Holding::lent). 0: none are, and nothing is lent.
  uint32_t small_step = 0;
  uint64_t page_slot_bytes = 0;     // KV, in pages of one layer and kind
  uint32_t pages_per_sequence = 0;  // of one layer and kind at full context
  uint64_t spill_bytes = 0;         // the most that may lie in the spill file
  bool is_large(uint32_t n_tokens) const { return small_step != 0 && n_tokens > small_step; }
};

// What one pass over the graph moves, where sequences hold `depth` tokens.
struct Traffic {
  uint64_t disk_bytes = 0;               // payload read from disk
  std::vector<uint64_t> computed_bytes;  // by site: payload that its products read from its memory
  std::vector<uint64_t> link_bytes;      // by site: payload copied to it from the host
  uint32_t hand_overs = 0;               // times that work goes on where something from another site has to come first
};

// How long a prompt takes, as tokens per second.
struct PromptRate {
  uint32_t tokens = 0;
  double tok_s = 0;
};

struct Prediction {
  double decode_tok_s = 0, prefill_tok_s = 0;
  uint32_t prefill_tokens = 0;       // of the prompt that prefill_tok_s is for
  double compute_s = 0, disk_s = 0;  // of one decoded token, before overlap
  // What a decoded token waits for most, and what part of its time that is busy: "disk", "RAM", "PCIe", "VRAM"
  // (of an accelerator), "compute", "hand-overs".
  std::string bottleneck;
  double bottleneck_share = 0;
  uint32_t decode_depth = 0;        // tokens held meanwhile
  std::vector<PromptRate> prefill;  // of several lengths that the context holds
  std::vector<double> op_s;  // by op: kernels and hand-overs of one decoded token, of a split one the longer part
};

struct Plan {
  Numerics numerics;
  Movement movement;
  WorkspaceShape workspace;
  uint32_t context = 0;
  Prediction prediction;

  const Holding& host() const { return movement.sites.front(); }
  // Of steps that are large or not.
  WorkspaceShape workspace_of(bool large) const;
  bool computes(uint8_t site) const;  // some op, or a part of one, in steps of either kind
  uint64_t kv_arena_bytes(size_t site) const { return movement.sites[site].kv_pages * movement.page_slot_bytes; }
};

// A value that an op reads and that is at another site, or its part of what another site computes: `width` floats of
// each token.
struct HandOver {
  uint32_t op = 0;
  uint8_t from = 0, to = 0;
  uint32_t width = 0;
};
// far: sequences are so long that the host has a part in accelerators' attention (Numerics::near_pages).
std::vector<HandOver> hand_overs(const Graph& graph, const Placement& placement, bool far = false);

// Bytes of what a step needs beside weights and KV: activations at a site, and what all sites read.
uint64_t workspace_bytes(const Graph& graph, const Plan& plan, uint8_t site);
// Of that, at its end, what only large steps need; none at the host.
uint64_t lent_bytes(const Graph& graph, const Plan& plan, uint8_t site);
uint64_t table_bytes(const Graph& graph, const Plan& plan);
// Lays the tables out in table_bytes() of memory.
void lay_out_tables(const Graph& graph, const Plan& plan, std::byte* base, StepTables& out);

// The most blocks that a table of this plan's weights and KV pages holds at once.
uint32_t block_count(const Graph& graph, const Plan& plan);

// The blocks that `site` computes with in steps of a kind but does not hold, in the order of first use.
std::vector<uint32_t> streamed_blocks(const Graph& graph, const Plan& plan, bool prompt, uint8_t site,
                                      bool large = false);
// By block: how often a pass of that kind reads it at `site`.
std::vector<uint32_t> block_uses(const Graph& graph, const Plan& plan, bool prompt, uint8_t site);
Traffic traffic(const Graph& graph, const Plan& plan, bool prompt, uint32_t depth = 0, bool large = false);

}  // namespace sluice::plan
