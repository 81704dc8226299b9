// TierManager: blocks, their copies in memory tiers, and the transfers between tiers and files.
//
// It knows nothing of models. A program registers memory tiers (each with a Budget), a Store and
// optionally CopyQueues between memory tiers, adds blocks, and then asks for copies: fetch() starts
// bringing one, pin() leases it, evict() lets it go. What to fetch, keep and evict is the caller's
// policy; that every byte is charged, that no copy is touched while somebody uses it, and that nothing
// is lost is this class's promise.
//
// Invariants
// - The BlockTable inside maps a block to its copies; one is authoritative (the newest version), and
//   only the table changes them. Its lock is never held during I/O.
// - A copy is in one state: loading -> ready -> (dirty -> writing ->) evicting -> gone, or failed.
// - A slot's memory is charged to its tier's Budget from allocation until it is free again, and it is
//   free again only after the last pin was released and the Event given at release has signalled.
// - A clean copy with another home (its extents, its spill file, or a copy in another tier) is dropped
//   by evict(); a dirty one is first written to a spill file, and dropped when that write has ended.
// - Each transfer ends exactly once: done, failed or cancelled, and is counted as such.
// - A failed load leaves no copy behind: after its Event failed, poll() frees the slot and the block
//   can be fetched again.
//
// Nothing here blocks on I/O but the destructor, which cancels transfers and waits for them. In steady
// state nothing is allocated.
// Threads: all functions from any thread. Pins are released by any thread.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/block.h"
#include "core/event.h"
#include "core/memory.h"
#include "core/queue.h"
#include "core/store.h"
#include "core/trace.h"
#include "offload/tier/budget.h"

namespace sluice::tier {

class TierManager;

enum class CopyState : uint8_t { absent, loading, ready, dirty, writing, evicting, failed };
std::string_view to_string(CopyState state);

// A lease on one copy: its memory stays where it is while the pin lives. Move-only. data() may be read
// after ready() has signalled ok (at once for copies that were made here).
class Pin {
 public:
  Pin() = default;
  Pin(Pin&& other) noexcept;
  Pin& operator=(Pin&& other) noexcept;
  ~Pin() { release(); }

  explicit operator bool() const { return manager_ != nullptr; }
  BlockId block() const { return block_; }
  TierId tier() const { return tier_; }
  std::byte* data(size_t part = 0) const;  // payload of extent `part`; device address if not host memory
  Event ready() const { return ready_; }

  // Says that the content was changed through this pin: this copy becomes the authoritative one, older
  // copies and the spilled version are stale and dropped. Only where it is the block's newest copy.
  void mark_dirty();

  // Ends the lease; the memory may be reused once `after` has signalled.
  void release(Event after = {});

 private:
  friend class TierManager;
  TierManager* manager_ = nullptr;
  const Block* descriptor_ = nullptr;
  BlockId block_;
  TierId tier_;
  std::byte* slot_ = nullptr;
  Event ready_;
};

struct TierStats {
  std::string name;
  uint64_t capacity = 0, used = 0, peak = 0;
  uint64_t bytes_in = 0;   // payload brought into this tier
  uint64_t bytes_out = 0;  // payload written from it
};

struct TransferStats {
  uint64_t started = 0, done = 0, failed = 0, cancelled = 0;
};

class TierManager {
 public:
  struct Options {
    Store* store = nullptr;         // may be null where all data is born in memory and nothing spills
    std::string spill_directory;    // where dirty blocks go under pressure; empty: they cannot
    uint64_t spill_bytes = 0;       // size of the spill file, made at the first spill
    uint32_t max_blocks = 1 << 16;  // bound of the table, all allocated by the constructor
  };
  explicit TierManager(const Options& options);
  ~TierManager();
  TierManager(const TierManager&) = delete;
  TierManager& operator=(const TierManager&) = delete;

  // Tiers, before any block. The first is the host's. The slots of a tier are carved from `memory` and
  // charged to `budget`; both must outlive the manager.
  TierId add_tier(std::string name, Memory& memory, Budget& budget);
  // Copies from one memory tier to another go through `queue`. A block fetched to a tier that files
  // cannot be read into goes through the host.
  void connect(TierId from, TierId to, CopyQueue& queue);

  // Blocks. The first form has a home in files; the second is born in memory by create().
  Result<BlockId> add_block(BlockKind kind, std::vector<Extent> home);
  Result<BlockId> add_block(BlockKind kind, uint64_t bytes);
  const Block& block(BlockId id) const;
  // Blocks are counted: add_block gives one reference; the last drop() frees copies (after their pins)
  // and spill space. A block with more than one reference must not be written (copy on write).
  void share(BlockId id);
  void drop(BlockId id);
  uint32_t references(BlockId id) const;

  // Starts transfers into `to`, all reads in one batch, in the order given. A block that has a copy
  // there or on its way is passed over. Stops at the first that finds no room: the count started or
  // passed over is in `done` and over_budget is returned; a failing submit shows in the pins' Events.
  Status fetch(std::span<const BlockId> blocks, TierId to, size_t& done);
  Status fetch(BlockId id, TierId to);
  // Asks a load to end early if nothing has pinned it.
  void cancel(BlockId id, TierId tier);

  // Leases the copy in `tier`, loading or there; not_found if there is none.
  Result<Pin> pin(BlockId id, TierId tier);
  // The first copy of a block born in memory: dirty, its content undefined. over_budget if no room.
  Result<Pin> create(BlockId id, TierId tier);

  // Lets a copy go: see the invariants. Its memory is free at a later poll(). Pinned copies are refused
  // (invalid_argument); absent ones are ok. Where a dirty copy cannot be written: over_budget for a full
  // spill file, io_error after a failed write (the copy then stays, dirty).
  Status evict(BlockId id, TierId tier);

  // Settles what has ended since the last call: loads, writes, releases. True if memory became free.
  bool poll();
  // An Event that may free memory in `tier` when it signals: a write of an evicted copy, or the use of a
  // released one. A default Event (done) if nothing is pending.
  Event pending(TierId tier) const;

  CopyState state(BlockId id, TierId tier) const;
  bool spilled(BlockId id) const;  // has a valid version in the spill file
  TierStats stats(TierId tier) const;
  TransferStats transfers() const;

 private:
  friend class Pin;
  struct Impl;
  Pin make_pin(BlockId id, TierId tier, const Block* descriptor, std::byte* slot, const Event& ready);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::tier
