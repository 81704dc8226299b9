// BlockTable: which blocks there are, where their copies lie, and what state each copy is in.
//
// It is the only thing that changes copies. It does no I/O: what has to be read, copied or written is
// handed out as Jobs, started by the caller without the table's lock, and reported back by started().
//
// Versions. Each change of a block's content makes a new version. A copy, the spilled image and the home
// extents (version 0) are valid while their version is the block's newest; older copies are stale: they
// cannot be pinned or fetched from, and are freed when nobody uses them. If the newest version is neither
// at home nor spilled, exactly one copy is its keeper: in state dirty or writing, or loading where it was
// changed before its load had ended. That copy is the authoritative one and is never dropped unsaved:
// it leaves by handing the keeping to another valid copy, or by a write to the spill file.
//
// States of a copy
//   absent -> loading            begin_load
//   absent -> dirty              create
//   loading -> ready | failed    its Event has signalled; dirty if it was changed meanwhile
//   ready -> dirty               mark_dirty
//   ready -> evicting -> absent  evict; in between the Events of its releases are waited for
//   dirty -> writing             evict; waits for releases, then (copied to host staging and) written
//   writing -> evicting          written, or another copy has become the keeper
//   writing -> dirty             the write failed
//   evicting -> ready, writing -> dirty   fetched again before it was gone, or before the write began
//   failed -> absent             when its last pin is gone
// A change made to a copy that was still loading counts only if the load succeeds: otherwise the block
// falls back to the version that was being loaded, which nobody has dropped until then.
//
// Cost: all calls but settle() and pending() take constant time in the number of blocks (they look at one
// block's copies); those two go through the copies that have something under way.
// Memory: vectors whose capacity is fixed by the constructor and add_tier(), filled as blocks are added.
// Threads: any. One lock, held for no I/O and no wait but for two: a call that meets a copy whose Job is
// being started by another thread sleeps until it is, and a release that finds EventSet::capacity Events
// of other Timelines pending sleeps until the first has signalled; both without the lock.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "offload/tier/job.h"
#include "offload/tier/slot_space.h"
#include "offload/tier/tier_manager.h"

namespace sluice::tier {

class BlockTable {
 public:
  static constexpr size_t max_tiers = 8;
  // Events of one load that cancel() can reach.
  using CancelList = std::vector<Event>;

  explicit BlockTable(uint32_t max_blocks);

  TierId add_tier(std::string name, Memory& memory, Budget& budget);
  void connect(TierId from, TierId to);
  Status replace_memory(TierId tier, Memory* memory);
  // Where dirty copies go. Without it they cannot leave.
  void use_spill(FileId file, uint64_t bytes);
  std::optional<FileId> spill_file() const;

  Result<BlockId> add(BlockKind kind, uint64_t bytes, std::vector<Extent> home);
  const Block& block(BlockId id) const;
  void share(BlockId id);
  void drop(BlockId id, CancelList& cancel);
  uint32_t references(BlockId id) const;

  enum class Load : uint8_t {
    present,  // there or on its way
    started,  // a Job was added
    busy,     // its source is being started by somebody: start your own Jobs, wait_started(), try again
  };
  Result<Load> begin_load(BlockId id, TierId to, JobList& jobs);
  void wait_started(BlockId id);
  // The Jobs' results are in; called once for each Job that was handed out.
  void started(std::span<const Job> jobs);
  void cancel(BlockId id, TierId tier, CancelList& cancel);

  struct Lease {
    const Block* block;
    std::byte* slot;
    Event ready;
  };
  Result<Lease> pin(BlockId id, TierId tier);
  Result<Lease> create(BlockId id, TierId tier);
  void mark_dirty(BlockId id, TierId tier);
  void unpin(BlockId id, TierId tier, const Event& after);

  // `spill_wanted` says whether a spill file can be made; where it is true on return, nothing was done:
  // make the file, use_spill(), call again.
  Status evict(BlockId id, TierId tier, JobList& jobs, CancelList& cancel, bool& spill_wanted);

  // Settles what has ended, and adds the Jobs that follow; call again while the list came back full.
  void settle(JobList& jobs);
  // True if memory became free since the last call.
  bool take_freed() { return freed_.exchange(false); }
  Event pending(TierId tier) const;

  CopyState state(BlockId id, TierId tier) const;
  bool spilled(BlockId id) const;
  TierStats stats(TierId tier) const;
  TransferStats transfers() const;

  // For the end: what to cancel, what to wait for, and the freeing of everything. No pins may be left,
  // and no other thread may be in here.
  void close(CancelList& cancel, std::vector<Event>& wait);
  void free_all();

 private:
  static constexpr uint64_t no_version = UINT64_MAX;
  static constexpr uint32_t none = UINT32_MAX;
  enum class Stage : uint8_t { waiting, copying, writing };  // of a copy in state writing

  struct Copy {
    CopyState state = CopyState::absent;
    Stage stage = Stage::waiting;
    bool starting = false;        // a Job for it is being started
    bool leaving = false;         // loading, and evicted meanwhile
    bool cancelling = false;      // loading, and asked to end early
    bool direct = false;          // loading from files without a queue in between: can be cancelled
    bool from_spill = false;      // loading from the spill file
    bool changed = false;         // loading, and changed meanwhile
    bool reserved = false;        // writing, and the block's place in the spill file is waiting for it
    bool listed = false;          // in the tier's list
    uint32_t pins = 0, uses = 0;  // uses: it is the source of a load that is being started
    SlotId slot = no_slot, staging = no_slot;
    uint32_t prev = none, next = none;
    uint64_t version = 0, base = 0;  // base: the version that is being loaded, where it was changed
    Event ready, io;
    EventSet releases;
  };
  struct Entry {
    Block block;
    uint32_t references = 0;
    bool alive = false;                                  // references > 0
    bool used = false;                                   // alive, or copies are still to be freed
    uint32_t unsettled = 0;                              // copies that were changed while loading, and still are
    uint32_t spill = RangeAllocator::none;               // its place in the spill file
    uint32_t spill_uses = 0;                             // reads and writes of that place under way
    uint32_t reserved = 0;                               // copies that will be written there
    uint64_t spill_version = no_version, spill_sum = 0;  // of what lies there, and its checksum
    uint64_t version = no_version, last_version = 0;
    std::unique_ptr<Status> load_failure;   // of the last load, until the next
    std::unique_ptr<Status> write_failure;  // not yet told
    std::unique_ptr<Event[]> parts;         // for each tier and extent, where there are several
  };
  struct Tier {
    Tier(std::string name, Memory& memory, Budget& budget, uint32_t max_blocks);
    SlotSpace space;
    std::vector<Copy> copies;             // by block
    std::array<bool, max_tiers> links{};  // to
    uint32_t head = none, tail = none;    // the copies with something under way, oldest first
    uint64_t bytes_in = 0, bytes_out = 0;
  };

  // block_table.cc
  Entry* find(BlockId id);
  const Entry* find(BlockId id) const;
  Copy& copy(const Entry& e, size_t t) { return tiers_[t]->copies[e.block.id.value]; }
  const Copy& copy(const Entry& e, size_t t) const { return tiers_[t]->copies[e.block.id.value]; }
  bool valid(const Entry& e, const Copy& c) const { return e.alive && c.version == e.version; }
  bool spilled(const Entry& e) const { return e.version != no_version && e.version == e.spill_version; }
  bool saved(const Entry& e) const { return spilled(e) || (e.version == 0 && !e.block.home.empty()); }
  void list(Entry& e, size_t t);
  void unlist(Entry& e, size_t t);
  void hold_until(std::unique_lock<std::mutex>& lock, Copy& c, const Event& event);
  void wait_until_started(std::unique_lock<std::mutex>& lock, const Copy& c);
  Lease lease(Entry& e, size_t t);
  void drop_older(Entry& e);
  void recycle(Entry& e);

  // table_loads.cc
  std::optional<Result<Load>> without_load(Entry& e, size_t t);
  std::optional<size_t> memory_source(const Entry& e, size_t t, bool& starting) const;
  Status take_slots(Entry& e, Copy& c, size_t t, bool staged);
  void fill_load(Entry& e, size_t t, std::optional<size_t> source, Job& job);
  void settle_load(Entry& e, size_t t);
  void load_ended(Entry& e, size_t t, const Status& status);
  void fall_back(Entry& e, const Copy& c);
  void count_end(const Status& status);
  void add_cancel(const Entry& e, size_t t, CancelList& cancel) const;

  // table_evictions.cc
  void advance(Entry& e, size_t t, JobList* jobs);
  bool free_now(const Entry& e, const Copy& c) const;
  bool under_way(const Entry& e, const Copy& c) const;
  void free_copy(Entry& e, size_t t);
  void free_staging(Copy& c);
  void free_stale_spill(Entry& e);
  std::optional<size_t> heir(const Entry& e, size_t t, bool loading) const;
  Status begin_eviction(Entry& e, size_t t);
  Status reserve_write(Entry& e, size_t t);
  void unreserve(Entry& e, Copy& c);
  void advance_write(Entry& e, size_t t, JobList* jobs);
  void begin_write(Entry& e, size_t t, JobList* jobs);
  void issue(Entry& e, size_t t, Job::Kind kind, JobList& jobs);
  void end_write(Entry& e, size_t t, const Status& status);

  // table_pending.cc
  std::optional<Event> blocking(const Entry& e, size_t t) const;
  std::optional<Event> staging_end(const Copy& c) const;
  Event under_load(const Copy& c) const;
  Event pending_locked(size_t t) const;

  const uint32_t max_blocks_;
  mutable std::mutex mutex_;
  std::condition_variable started_;
  std::vector<Entry> entries_;
  std::vector<uint32_t> unused_;  // entries
  std::vector<std::unique_ptr<Tier>> tiers_;
  std::optional<RangeAllocator> spill_;
  FileId spill_file_;
  TransferStats transfers_;
  mutable Timeline now_;  // Event(now_, 0): has signalled, yet is not a default Event; poll() is what it takes
  std::atomic<uint32_t> n_listed_{0};
  std::atomic<bool> freed_{false};
};

}  // namespace sluice::tier
