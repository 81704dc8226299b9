#include "offload/tier/tier_manager.h"

#include <mutex>

#include "core/bytes.h"
#include "core/error.h"
#include "offload/tier/block_table.h"
#include "offload/tier/transfers.h"

namespace sluice::tier {

std::string_view to_string(CopyState state) {
  switch (state) {
    case CopyState::absent: return "absent";
    case CopyState::loading: return "loading";
    case CopyState::ready: return "ready";
    case CopyState::dirty: return "dirty";
    case CopyState::writing: return "writing";
    case CopyState::evicting: return "evicting";
    case CopyState::failed: return "failed";
  }
  return "unknown";
}

struct TierManager::Impl {
  explicit Impl(const Options& o) : options(o), table(o.max_blocks), transfers(o.store) {}

  const Options options;
  BlockTable table;
  Transfers transfers;
  std::mutex spill_mutex;

  void start(JobList& jobs) {
    if (jobs.empty()) return;
    transfers.start(jobs.all());
    table.started(jobs.all());
    jobs.clear();
  }
  void cancel(const BlockTable::CancelList& events) {
    if (!events.empty()) options.store->cancel(events);
  }
  bool can_make_spill() const { return options.store != nullptr && !options.spill_directory.empty(); }
  Status make_spill();
};

Status TierManager::Impl::make_spill() {
  std::lock_guard lock(spill_mutex);
  if (table.spill_file()) return {};
  const uint64_t bytes = align_up(options.spill_bytes, io_unit);
  SLUICE_ASSIGN_OR_RETURN(const FileId file, options.store->create_spill(options.spill_directory, bytes));
  table.use_spill(file, bytes);
  return {};
}

TierManager::TierManager(const Options& options) : impl_(std::make_unique<Impl>(options)) {}

TierManager::~TierManager() {
  BlockTable::CancelList cancel;
  std::vector<Event> wait;
  impl_->table.close(cancel, wait);
  impl_->cancel(cancel);
  for (const Event& event : wait) event.wait().ignore();
  impl_->table.free_all();
  if (const auto spill = impl_->table.spill_file()) impl_->options.store->close(*spill);
}

TierId TierManager::add_tier(std::string name, Memory& memory, Budget& budget) {
  return impl_->table.add_tier(std::move(name), memory, budget);
}

void TierManager::connect(TierId from, TierId to, CopyQueue& queue) {
  impl_->table.connect(from, to);
  impl_->transfers.connect(from, to, queue);
}

Status TierManager::replace_memory(TierId tier, Memory* memory) { return impl_->table.replace_memory(tier, memory); }

Result<BlockId> TierManager::add_block(BlockKind kind, std::vector<Extent> home) {
  if (home.empty()) return error(Code::invalid_argument, "a block with a home needs at least one extent");
  if (impl_->options.store == nullptr)
    return error(Code::invalid_argument, "a block cannot have a home in files: there is no store");
  return impl_->table.add(kind, 0, std::move(home));
}

Result<BlockId> TierManager::add_block(BlockKind kind, uint64_t bytes) { return impl_->table.add(kind, bytes, {}); }

const Block& TierManager::block(BlockId id) const { return impl_->table.block(id); }
void TierManager::share(BlockId id) { impl_->table.share(id); }
uint32_t TierManager::references(BlockId id) const { return impl_->table.references(id); }

void TierManager::drop(BlockId id) {
  BlockTable::CancelList cancel;
  impl_->table.drop(id, cancel);
  impl_->cancel(cancel);
}

Status TierManager::fetch(std::span<const BlockId> blocks, TierId to, size_t& done) {
  JobList jobs;
  for (done = 0; done < blocks.size();) {
    const auto load = impl_->table.begin_load(blocks[done], to, jobs);
    if (!load.ok()) {
      impl_->start(jobs);
      return load.status();
    }
    if (*load == BlockTable::Load::busy) {
      impl_->start(jobs);  // before waiting: the other thread may be waiting for one of these
      impl_->table.wait_started(blocks[done]);
      continue;
    }
    ++done;
    if (jobs.full()) impl_->start(jobs);
  }
  impl_->start(jobs);
  return {};
}

Status TierManager::fetch(BlockId id, TierId to) {
  size_t done = 0;
  return fetch({&id, 1}, to, done);
}

void TierManager::cancel(BlockId id, TierId tier) {
  BlockTable::CancelList cancel;
  impl_->table.cancel(id, tier, cancel);
  impl_->cancel(cancel);
}

Pin TierManager::make_pin(BlockId id, TierId tier, const Block* descriptor, std::byte* slot, const Event& ready) {
  Pin pin;
  pin.manager_ = this;
  pin.descriptor_ = descriptor;
  pin.block_ = id;
  pin.tier_ = tier;
  pin.slot_ = slot;
  pin.ready_ = ready;
  return pin;
}

Result<Pin> TierManager::pin(BlockId id, TierId tier) {
  SLUICE_ASSIGN_OR_RETURN(const BlockTable::Lease lease, impl_->table.pin(id, tier));
  return make_pin(id, tier, lease.block, lease.slot, lease.ready);
}

Result<Pin> TierManager::create(BlockId id, TierId tier) {
  SLUICE_ASSIGN_OR_RETURN(const BlockTable::Lease lease, impl_->table.create(id, tier));
  return make_pin(id, tier, lease.block, lease.slot, lease.ready);
}

Status TierManager::evict(BlockId id, TierId tier) {
  JobList jobs;
  BlockTable::CancelList cancel;
  bool spill_wanted = impl_->can_make_spill();
  Status status = impl_->table.evict(id, tier, jobs, cancel, spill_wanted);
  if (spill_wanted) {
    SLUICE_RETURN_IF_ERROR(impl_->make_spill());
    spill_wanted = false;
    status = impl_->table.evict(id, tier, jobs, cancel, spill_wanted);
  }
  impl_->start(jobs);
  impl_->cancel(cancel);
  return status;
}

bool TierManager::poll() {
  JobList jobs;
  for (bool more = true; more;) {
    impl_->table.settle(jobs);
    more = jobs.full();
    impl_->start(jobs);
  }
  return impl_->table.take_freed();
}

Event TierManager::pending(TierId tier) const { return impl_->table.pending(tier); }
CopyState TierManager::state(BlockId id, TierId tier) const { return impl_->table.state(id, tier); }
bool TierManager::spilled(BlockId id) const { return impl_->table.spilled(id); }
TierStats TierManager::stats(TierId tier) const { return impl_->table.stats(tier); }
TransferStats TierManager::transfers() const { return impl_->table.transfers(); }

Pin::Pin(Pin&& other) noexcept { *this = std::move(other); }

Pin& Pin::operator=(Pin&& other) noexcept {
  if (this == &other) return *this;
  release();
  manager_ = std::exchange(other.manager_, nullptr);
  descriptor_ = other.descriptor_;
  block_ = other.block_;
  tier_ = other.tier_;
  slot_ = other.slot_;
  ready_ = other.ready_;
  return *this;
}

std::byte* Pin::data(size_t part) const { return slot_ + descriptor_->part_offset(part); }

void Pin::mark_dirty() {
  if (manager_ != nullptr) manager_->impl_->table.mark_dirty(block_, tier_);
}

void Pin::release(Event after) {
  if (TierManager* manager = std::exchange(manager_, nullptr)) manager->impl_->table.unpin(block_, tier_, after);
}

}  // namespace sluice::tier
