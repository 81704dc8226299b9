#include "tests/standin/grid.h"

#include <sluice_standin/control.h>

#include <algorithm>
#include <cstdarg>

#include "tests/standin/guarded.h"

namespace standin {

__thread const CudaThread* current_thread = nullptr;

namespace {

constexpr size_t max_static_bytes = 48 * 1024;

__thread Grid* running_grid = nullptr;

const char* name_of(Meeting meeting) {
  switch (meeting) {
    case Meeting::none: return "nothing";
    case Meeting::block_barrier: return "block_barrier";
    case Meeting::warp_barrier: return "warp_barrier";
    case Meeting::shuffle: return "shuffle";
    case Meeting::ballot: return "vote";
    case Meeting::ldmatrix: return "ldmatrix";
    case Meeting::mma_f16:
    case Meeting::mma_bf16:
    case Meeting::mma_s8: return "mma";
  }
  return "";
}

// What kernels that begin early must not copy before they wait; changed while none is under way.
struct Range {
  uintptr_t begin, end;
};
std::vector<Range>& not_early() {
  static std::vector<Range> ranges;
  return ranges;
}

bool same(Site a, Site b) { return a.line == b.line && (a.file == b.file || __builtin_strcmp(a.file, b.file) == 0); }

std::string at(Site site) { return std::string(site.file) + ":" + std::to_string(site.line); }

}  // namespace

void forbid_early(const void* memory, uint64_t bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(memory);
  not_early().push_back({begin, begin + bytes});
}

void allow_early() { not_early().clear(); }

Grid::Grid() = default;

Grid::~Grid() { release_fibers(); }

// Each fiber leaves its stack for good, so that AddressSanitizer gives up what it holds for it.
void Grid::release_fibers() {
  retire_ = true;
  for (size_t i = 0; i < n_fibers_; ++i) {
    if (fibers_[i].state != State::fresh) switch_context(worker_, fibers_[i].context);
    destroy_context(fibers_[i].context);
  }
  retire_ = false;
  n_fibers_ = 0;
}

Grid& Grid::running() { return *running_grid; }

std::string Grid::run(const Kernel& kernel) {
  std::unique_ptr<Clock[]> clocks;
  {
    Quiet quiet;
    running_grid = this;
    kernel_ = &kernel;
    threads_ = kernel.block_x * kernel.block_y;
    failure_.clear();
    if (!prepare()) return "no memory for the threads of kernel " + std::string(kernel.name);
    clocks = std::make_unique<Clock[]>(2);
    start_ = &clocks[0];
    end_ = &clocks[1];
  }
  release(start_);
  const uint64_t blocks = uint64_t{kernel.grid_x} * kernel.grid_y * kernel.grid_z;
  for (uint64_t i = 0; i < blocks; ++i) {
    first_ = i == 0;
    last_ = i + 1 == blocks;
    const auto row = static_cast<uint32_t>(i / kernel.grid_x);
    if (!run_block(static_cast<uint32_t>(i % kernel.grid_x), row % kernel.grid_y, row / kernel.grid_y)) break;
  }
  acquire(end_);
  Quiet quiet;
  clocks.reset();
  return failure_;
}

// Fibers for a block's threads; those of an earlier kernel stay if they are enough.
bool Grid::prepare() {
  worker_.side.tsan_fiber = this_tsan_fiber();
  if (n_fibers_ >= threads_) return true;
  release_fibers();
  stacks_ = std::make_unique<Stacks>(threads_);
  if (!stacks_->ok()) return false;
  fibers_ = std::make_unique<Fiber[]>(threads_);
  warps_ = std::make_unique<Warp[]>((threads_ + 31) / 32);
  n_fibers_ = threads_;
  for (uint32_t i = 0; i < threads_; ++i) {
    fibers_[i].grid = this;
    fibers_[i].warp = &warps_[i / 32];
    fibers_[i].state = State::fresh;
    make_context(fibers_[i].context, stacks_->bottom(i), fiber_main, &fibers_[i]);
  }
  return true;
}

// As new, whatever it was doing.
void Grid::restart(Fiber& fiber) {
  destroy_context(fiber.context);
  make_context(fiber.context, stacks_->bottom(static_cast<size_t>(&fiber - fibers_.get())), fiber_main, &fiber);
  fiber.state = State::fresh;
}

bool Grid::run_block(uint32_t x, uint32_t y, uint32_t z) {
  {
    Quiet quiet;
    block_ = {x, y, z, kernel_->block_x, kernel_->block_y, threads_, kernel_->grid_x, kernel_->grid_y};
    start_block();
  }
  running_ = first_ready_;
  first_ready_ = running_->next;
  switch_context(worker_, running_->context);
  Quiet quiet;
  current_thread = nullptr;
  if (failure_.empty() && ended_ < threads_) failure_ = missing();
  if (failure_.empty()) check_waited();
  if (failure_.empty()) check_shared();
  if (failure_.empty()) check_transfers();
  if (ended_ < threads_) {
    for (uint32_t i = 0; i < threads_; ++i) {
      if (fibers_[i].state != State::ended) restart(fibers_[i]);
    }
  }
  end_block();
  return failure_.empty();
}

void Grid::start_block() {
  const uint32_t n_warps = (threads_ + 31) / 32;
  if (under_tsan()) clocks_ = new Clock[2 + 2 * n_warps];
  for (uint32_t w = 0; w < n_warps; ++w) {
    Warp& warp = warps_[w];
    warp.lanes = std::min(32u, threads_ - w * 32);
    warp.arrived = warp.ended = 0;
    warp.clocks = clocks_ == nullptr ? nullptr : clocks_ + 2 + 2 * w;
    warp.fibers = &fibers_[w * 32];
  }
  arrived_ = ended_ = 0;
  first_ready_ = last_ready_ = nullptr;
  for (uint32_t i = 0; i < threads_; ++i) {
    Fiber& fiber = fibers_[i];
    fiber.thread = {i % block_.dim_x, i / block_.dim_x, i % 32, i / 32, &block_};
    fiber.meeting = Meeting::none;
    fiber.waited = false;
    fiber.block_barriers = fiber.warp_barriers = fiber.committed = 0;
    fiber.copies.clear();
    push_back(fiber);
  }
}

void Grid::end_block() {
  for (const Shared& shared : shared_) guarded_free(shared.memory);
  shared_.clear();
  transfers_.clear();
  static_bytes_ = 0;
  delete[] clocks_;
  clocks_ = nullptr;
}

void Grid::check_waited() {
  const auto waited = [](const Fiber& fiber) { return fiber.waited; };
  const auto n = static_cast<size_t>(std::count_if(fibers_.get(), fibers_.get() + threads_, waited));
  if (!kernel_->early || n == threads_) return;
  failure_ = place() + ": may begin early, but only " + std::to_string(n) + " of " + std::to_string(threads_) +
             " threads wait_for_previous()";
}

void Grid::check_shared() {
  for (const Shared& shared : shared_) {
    if (guard_intact(shared.memory, shared.bytes)) continue;
    failure_ = place() + ": " + at(shared.site) + ": shared array " + shared.name + " of " +
               std::to_string(shared.bytes) + " bytes is overrun";
  }
}

void Grid::check_transfers() {
  for (const Transfer& transfer : transfers_)
    if (transfer.begun != 0) failure_ = place() + ": ends while rows are on their way to shared memory";
}

void Grid::fiber_main(void* memory) {
  auto& self = *static_cast<Fiber*>(memory);
  Grid& grid = *self.grid;
  while (!grid.retire_) grid.live(self);
  exit_to(grid.worker_);
}

// One thread of one block.
void Grid::live(Fiber& self) {
  current_thread = &self.thread;
  if (first_) acquire(start_);
  self.state = State::ready;
  kernel_->call(kernel_->arguments);
  if (last_) release(end_);
  self.state = State::ended;
  ++self.warp->ended;
  ++ended_;
  give_way();
}

void Grid::push_back(Fiber& fiber) {
  fiber.next = nullptr;
  (first_ready_ == nullptr ? first_ready_ : last_ready_->next) = &fiber;
  last_ready_ = &fiber;
}

void Grid::push_front(Fiber& fiber) {
  fiber.next = first_ready_;
  if (first_ready_ == nullptr) last_ready_ = &fiber;
  first_ready_ = &fiber;
}

void Grid::give_way() {
  Fiber& self = *running_;
  running_ = first_ready_;
  if (running_ == nullptr) {
    switch_context(self.context, worker_);
  } else {
    first_ready_ = running_->next;
    switch_context(self.context, running_->context);
  }
  current_thread = &self.thread;
}

void Grid::meet_block(Site site) {
  Fiber& self = *running_;
  if (arrived_ == 0) barrier_ = site;
  if (!same(barrier_, site)) {
    fail(site, "block_barrier, while other threads of the block are at that of %s:%d", barrier_.file, barrier_.line);
  }
  Clock* clock = clocks_ == nullptr ? nullptr : &clocks_[self.block_barriers++ % 2];
  release(clock);
  self.meeting = Meeting::block_barrier;
  self.site = site;
  if (++arrived_ < threads_) {
    self.state = State::waiting;
    give_way();
  } else {
    arrived_ = 0;
    for (uint32_t i = 0; i < threads_; ++i) {
      if (&fibers_[i] == &self) continue;
      fibers_[i].state = State::ready;
      push_back(fibers_[i]);
    }
  }
  self.meeting = Meeting::none;
  acquire(clock);
}

void Grid::meet_warp(Site site) {
  Fiber& self = *running_;
  Clock* clock = clocks_ == nullptr ? nullptr : &self.warp->clocks[self.warp_barriers++ % 2];
  release(clock);
  collect(Meeting::warp_barrier, site, [](Exchange&) {});
  acquire(clock);
}

void Grid::collect(Meeting meeting, Site site, void (*complete)(Exchange&)) {
  Fiber& self = *running_;
  Warp& warp = *self.warp;
  arrive(meeting, site);
  if (warp.arrived < 32) {
    self.state = State::waiting;
    give_way();
  } else {
    warp.arrived = 0;
    complete(warp.exchange);
    for (uint32_t i = 32; i-- > 0;) {
      if (&warp.fibers[i] == &self) continue;
      warp.fibers[i].state = State::ready;
      push_front(warp.fibers[i]);
    }
  }
  self.meeting = Meeting::none;
}

void Grid::arrive(Meeting meeting, Site site) {
  Fiber& self = *running_;
  Warp& warp = *self.warp;
  const char* name = name_of(meeting);
  if (warp.lanes < 32) fail(site, "%s in a warp of fewer than 32 threads", name);
  if (warp.ended > 0) fail(site, "%s of a warp of which %u lanes have left the kernel", name, warp.ended);
  if (warp.arrived == 0) {
    warp.meeting = meeting;
    warp.site = site;
  } else if (warp.meeting != meeting || !same(warp.site, site)) {
    fail(site, "%s, while other lanes of the warp are at the %s of %s:%d", name, name_of(warp.meeting), warp.site.file,
         warp.site.line);
  }
  ++warp.arrived;
  self.meeting = meeting;
  self.site = site;
}

Exchange& Grid::exchange() { return running_->warp->exchange; }

std::string Grid::place() const {
  return std::string("kernel ") + kernel_->name + ", block (" + std::to_string(block_.x) + "," +
         std::to_string(block_.y) + "," + std::to_string(block_.z) + ")";
}

// Nothing is ready, and not all have ended: who waits where.
std::string Grid::missing() {
  std::string text = place();
  const Fiber *const begin = fibers_.get(), *const end = begin + threads_;
  uint32_t told = 0;
  for (const Fiber* fiber = begin; fiber != end && told < 4; ++fiber) {
    const auto waits_there = [&](const Fiber& other) {
      return other.state == State::waiting && other.meeting == fiber->meeting && same(other.site, fiber->site);
    };
    if (fiber->state != State::waiting || std::any_of(begin, fiber, waits_there)) continue;
    text += (told++ == 0 ? ": " : ", ") + at(fiber->site) + ": " +
            std::to_string(std::count_if(fiber, end, waits_there)) + " threads wait at " + name_of(fiber->meeting);
  }
  return text + " for others that do not come; " + std::to_string(ended_) + " of " + std::to_string(threads_) +
         " have left the kernel";
}

void Grid::fail(Site site, const char* format, ...) {
  Fiber& self = *running_;
  {
    Quiet quiet;
    char what[512];
    va_list arguments;
    va_start(arguments, format);
    __builtin_vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    failure_ = place() + ", thread (" + std::to_string(self.thread.x) + "," + std::to_string(self.thread.y) +
               "): " + at(site) + ": " + what;
  }
  self.state = State::waiting;
  first_ready_ = last_ready_ = nullptr;
  switch_context(self.context, worker_);
  __builtin_trap();
}

void* Grid::shared_array(const void* key, const char* name, size_t bytes, Site site) {
  for (const Shared& shared : shared_) {
    if (shared.key == key) return shared.memory;
  }
  static_bytes_ += bytes;
  if (static_bytes_ > max_static_bytes) fail(site, "static shared arrays of more than 48 KiB");
  return add_shared(key, name, bytes, site);
}

void* Grid::dynamic_shared(Site site) {
  for (const Shared& shared : shared_) {
    if (shared.key == this) return shared.memory;
  }
  return add_shared(this, "dynamic", kernel_->shared_bytes, site);
}

void* Grid::add_shared(const void* key, const char* name, size_t bytes, Site site) {
  Quiet quiet;
  shared_.push_back({key, name, guarded_alloc(bytes, 16), bytes, site});
  return shared_.back().memory;
}

void Grid::wait_for_previous() { running_->waited = true; }

void Grid::check_early(const void* global, uint64_t bytes, Site site) {
  if (!kernel_->early || running_->waited) return;
  const auto at = reinterpret_cast<uintptr_t>(global);
  for (const Range& range : not_early())
    if (at < range.end && at + bytes > range.begin)
      fail(site, "copies what kernels before may still write, and does not wait_for_previous() first");
}

void Grid::async_start(const AsyncCopy& copy, Site site) {
  check_early(copy.global, 16, site);
  Quiet quiet;
  running_->copies.push_back({copy, running_->committed});
}

void Grid::async_commit() { ++running_->committed; }

Grid::Transfer& Grid::transfer(const void* barrier, Site site) {
  for (Transfer& transfer : transfers_)
    if (transfer.barrier == barrier) return transfer;
  fail(site, "a barrier for rows that was not initialized");
}

void Grid::transfer_init(const void* barrier, uint32_t threads, Site site) {
  for (const Transfer& transfer : transfers_)
    if (transfer.barrier == barrier) fail(site, "a barrier for rows that is initialized again");
  Quiet quiet;
  transfers_.push_back({barrier, threads, 0, 0, 0, 0, {}, under_tsan() ? std::make_unique<Clock[]>(4) : nullptr});
}

void Grid::transfer_expect(const void* barrier, uint32_t bytes, Site site) {
  Transfer& t = transfer(barrier, site);
  if (t.begun == t.threads) fail(site, "rows are announced before those announced last were waited for");
  ++t.begun;
  t.expected += bytes;
}

void Grid::transfer_start(const void* barrier, const RowCopy& copy, Site site) {
  Transfer& t = transfer(barrier, site);
  if (t.started + copy.bytes > t.expected) fail(site, "a row is copied that was not announced");
  if (copy.bytes % 16 != 0) fail(site, "a row of %u bytes is copied, no multiple of 16", copy.bytes);
  check_early(copy.global, copy.bytes, site);
  release(t.clock(t.ended, 0));
  Quiet quiet;
  t.started += copy.bytes;
  t.copies.push_back(copy);
}

bool Grid::transfer_next(const void* barrier, uint32_t parity, RowCopy* copy, Site site) {
  Transfer& t = transfer(barrier, site);
  if (t.ended % 2 != parity) return false;  // it is there
  if (t.begun < t.threads) fail(site, "waits for rows that %u of %u threads have announced", t.begun, t.threads);
  if (t.started != t.expected)
    fail(site, "waits for %u bytes of rows, of which %u are on their way", t.expected, t.started);
  acquire(t.clock(t.ended, 0));
  if (t.copies.empty()) {
    release(t.clock(t.ended, 1));
    ++t.ended;
    t.begun = t.expected = t.started = 0;
    return false;
  }
  Quiet quiet;
  *copy = t.copies.back();
  t.copies.pop_back();
  return true;
}

void Grid::transfer_end(const void* barrier, uint32_t parity) { acquire(transfer(barrier, {}).clock(parity, 1)); }

bool Grid::async_next(uint32_t pending, AsyncCopy* copy) {
  Fiber& self = *running_;
  if (self.copies.empty() || self.copies.front().group + pending >= self.committed) return false;
  Quiet quiet;
  *copy = self.copies.front().copy;
  self.copies.erase(self.copies.begin());
  return true;
}

}  // namespace standin
