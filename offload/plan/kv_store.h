// KvStore: sequences and their KV pages, as blocks of a TierManager.
//
// The pages of a layer lie in the memory of the site that attends to it; a site's memory for pages is a pool. Where
// that is an accelerator's, pages of a sequence from `near_pages` on may lie in the host's, which is the first pool. A
// page holds page_tokens tokens of one layer and kind (K or V). A sequence that is forked shares its pages; a shared
// page is copied before it is written. Full pages beyond `kept_pages` are written to the spill file once and read
// again, group by group, whenever their layer is attended to; what comes back is bit-identical. The pages that stay are
// the oldest ones: under a cyclic scan any fixed set is as good as any other, and this one never changes.
//
// Threads: one, that of the executor. Kernels read the pointer tables (KvSpan) until the Events that the
// executor gives back.
#pragma once

#include <memory>
#include <vector>

#include "core/batch.h"
#include "core/kernel.h"
#include "offload/plan/plan.h"
#include "offload/tier/tier_manager.h"

namespace sluice::plan {

class KvStore {
 public:
  struct Pool {
    TierId tier;                  // memory of the pages
    uint32_t kept_pages = 0;      // full pages that may stay in memory, of all sequences together
    uint32_t group_pages = 0;     // pages of a layer, kind and sequence brought back at once; 0: none ever leave
    CopyQueue* copies = nullptr;  // to the tier, from itself and from the host's; null where it is the host's memory
  };
  struct Options {
    std::vector<Pool> pools;
    std::vector<uint8_t> layer_pool;  // by layer
    uint32_t near_pages = all_pages;  // of a sequence in a layer's own pool; those behind are in the first one
    uint32_t n_kv_heads = 1;
    uint32_t page_tokens = 64;
    uint64_t page_bytes = 0;  // payload of one page
    uint32_t context = 0;     // most tokens of a sequence
    uint32_t max_sequences = 1;
    // Pointer tables for kernels, where these reach them: max_sequences x layers x 2 x pages of a sequence. Null:
    // in memory of the store's own.
    std::byte** tables = nullptr;
  };
  // Those of a plan, but for the pools and the tables, which are the caller's.
  static Options options_of(const Graph& graph, const Plan& plan);
  KvStore(tier::TierManager& tiers, const Options& options);
  ~KvStore();

  // Sequences. invalid_argument for an unknown one; over_budget when max_sequences exist.
  Result<SequenceId> create();
  Result<SequenceId> fork(SequenceId sequence);  // a second sequence with the same content; O(pages)
  void destroy(SequenceId sequence);
  Result<uint32_t> length(SequenceId sequence) const;
  // Keeps the first n tokens. May read a page back from disk.
  Status truncate(SequenceId sequence, uint32_t n);
  // Of the tokens from `base` on, keeps those at the given cells (ascending), moved together: the
  // accepted path of a draft tree. May read pages back from disk.
  Status commit(SequenceId sequence, uint32_t base, const std::vector<uint32_t>& cells);

  // --- one step, driven by the executor -----------------------------------------------------------
  // Announces n more tokens: checks the context and makes shared last pages writable. Nothing of the
  // step counts until end_step; abandon_step drops what it wrote.
  Status begin_step(SequenceId sequence, uint32_t n);
  void end_step(SequenceId sequence, bool keep);

  // Makes the pages of one layer that the announced tokens go to. Waits for memory if it must.
  Status make_room(SequenceId sequence, uint32_t layer);
  // True if some page of the layer that the step reads is not in memory.
  bool any_spilled(SequenceId sequence, uint32_t layer) const;
  // Pages of a layer that the announced step sees, counting its new tokens.
  uint32_t n_pages(SequenceId sequence) const;
  // Pointer table of a layer: entries [first, first + n) are valid after bring().
  KvSpan span(SequenceId sequence, uint32_t layer, uint32_t first, uint32_t n);
  // Brings spilled pages [first, first + n) of a layer back; `ready` gets the Events to wait for. The
  // pages stay until release().
  Status bring(SequenceId sequence, uint32_t layer, uint32_t first, uint32_t n, std::vector<Event>& ready);
  void release(SequenceId sequence, uint32_t layer, uint32_t first, uint32_t n, const Event& after);
  // The layer was attended to: full pages beyond the kept ones may go, once `after` has signalled.
  void settle(SequenceId sequence, uint32_t layer, const Event& after);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::plan
