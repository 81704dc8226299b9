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
// - What comes back from the spill file is what was written: a checksum is taken before the write and
//   compared after the read, off all locks; a copy that fails it is never ready, its Event says corrupt.
// - A failed load leaves no copy behind: after its Event failed, poll() frees the slot and the block
//   can be fetched again. Until then pin() gives the reason of the failure.
//
// Sources. fetch() takes the newest version from the nearest place: a copy in a memory tier that is
// connected (one that is still loading too), else the spill file, else the home extents. A tier that
// files cannot be read into is loaded through a transient slot of the host's tier, charged to it until
// the copy has been made; dirty copies leave such a tier the same way.
//
// A copy that is evicted but not gone yet is taken back by fetch() if nothing has to be undone for that;
// if its write has begun, fetch() says over_budget until it is gone.
//
// Nothing here blocks on I/O but the destructor, which cancels transfers and waits for them; what starts
// I/O (fetch, evict, poll), as far as Store::submit() and a CopyQueue with a full ring do, and who wants
// the same copy in that moment; and a release that is the fifth to wait for a Timeline of its own on one
// copy (see Pin::release). In steady state nothing is allocated, but for the text of a Status that is not
// ok. poll(), pending() take time in what is under way, all else in the copies of one block.
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

  // Says that the content was changed through this pin, or will be by work that is enqueued behind
  // ready(): this copy becomes the authoritative one, older copies and the spilled version are stale and
  // dropped. Only where it is the block's newest copy, and the block has one reference. If the load
  // beneath it fails after all, the change never was and the older versions are valid again.
  // Nobody else may be reading the copy: neither through pins nor as the source of a copy to another
  // tier that has not ended.
  void mark_dirty();

  // Ends the lease; the memory may be reused, or written out, once `after` has signalled, however it
  // ended. Of several Events of one Timeline the latest counts; with four other Timelines pending on the
  // same copy the call waits for one of them. The Timeline must live until a poll() after the signal.
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
  uint64_t capacity = 0, used = 0, peak = 0;  // of slots, staging for other tiers among them
  uint64_t bytes_in = 0;                      // payload of the loads into this tier that ended ok
  uint64_t bytes_out = 0;                     // payload written from it to the spill file
};

// A load is one transfer, and so is the writing out of a dirty copy, staging included.
struct TransferStats {
  uint64_t started = 0, done = 0, failed = 0, cancelled = 0;
};

class TierManager {
 public:
  struct Options {
    Store* store =
        nullptr;  // outlives the manager and its pins; may be null where all data is born in memory and nothing spills
    std::string spill_directory;    // where dirty blocks go under pressure; empty: they cannot
    uint64_t spill_bytes = 0;       // size of the spill file, made at the first spill
    uint32_t max_blocks = 1 << 16;  // bound of the table, all allocated by the constructor
  };
  explicit TierManager(const Options& options);
  // No pins may be left. Cancels and waits for transfers, waits for the Events of releases, frees all.
  ~TierManager();
  TierManager(const TierManager&) = delete;
  TierManager& operator=(const TierManager&) = delete;

  // Tiers, before any block. The first is the host's. The slots of a tier are carved from `memory` and
  // charged to `budget`; both must outlive the manager.
  TierId add_tier(std::string name, Memory& memory, Budget& budget);
  // Copies from one memory tier to another go through `queue`. A block fetched to a tier that files
  // cannot be read into goes through the host. Again: through another one from now on; only while nothing is under
  // way between the two.
  void connect(TierId from, TierId to, CopyQueue& queue);
  // Other memory for a tier, of the same kind: what the tier had may be given back then. Null: none, and nothing finds
  // room there. The limit of its Budget is the caller's to set. invalid_argument, and nothing has changed, while the
  // tier holds copies or something passes through it: evict() them and wait until they are gone.
  Status replace_memory(TierId tier, Memory* memory);

  // Blocks. The first form has a home in files; the second is born in memory by create().
  Result<BlockId> add_block(BlockKind kind, std::vector<Extent> home);
  Result<BlockId> add_block(BlockKind kind, uint64_t bytes);
  const Block& block(BlockId id) const;
  // Blocks are counted: add_block gives one reference; the last drop() frees copies (after their pins)
  // and spill space, and the id may be given to another block once all of that is free. A block with more
  // than one reference must not be written (copy on write).
  void share(BlockId id);
  void drop(BlockId id);
  uint32_t references(BlockId id) const;

  // Starts transfers into `to`, all reads in one batch, in the order given. A block that has a copy
  // there or on its way is passed over. Stops at the first that finds no room: the count started or
  // passed over is in `done` and over_budget is returned; a failing submit shows in the pins' Events.
  // Also stops with: not_found, no such block, or one that never had content; unavailable, an old or failed
  // copy is in the way and pinned; unsupported, no connection leads there.
  Status fetch(std::span<const BlockId> blocks, TierId to, size_t& done);
  Status fetch(BlockId id, TierId to);
  // Asks a load to end early if nothing has pinned it. Only loads straight from files do: behind any
  // other there is work on a CopyQueue, which would fail with it.
  void cancel(BlockId id, TierId tier);

  // Leases the copy in `tier`, loading or there. If there is none: the reason for which the last load of
  // the block failed, else not_found. Copies that are stale or on their way out are none.
  Result<Pin> pin(BlockId id, TierId tier);
  // The first copy of a block born in memory: dirty, its content undefined. over_budget if no room.
  Result<Pin> create(BlockId id, TierId tier);

  // Lets a copy go: see the invariants. Its memory is free at a later poll(). Pinned copies are refused
  // (invalid_argument); absent ones are ok, and those on their way; a load is cancelled, or dropped when
  // it has ended. A dirty copy is handed to another tier's valid copy where there is one, else written.
  // Where it cannot be: over_budget for a full spill file, or for none, or for want of staging; and after
  // a write has failed the next call returns that failure, once, and the one after it tries again. The
  // copy then stays, dirty.
  Status evict(BlockId id, TierId tier);

  // Settles what has ended since the last call: loads, writes, releases. True if memory became free.
  bool poll();
  // An Event that may free memory in `tier` when it signals and poll() is called: a write of an evicted
  // copy, the use of a released one, or what holds staging memory of the host; for a tier that is loaded
  // through the host also what may free the host's. A default Event (done) if nothing is pending.
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
