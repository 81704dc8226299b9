#include "tests/support/faulty_store.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "core/error.h"
#include "core/trace.h"

namespace sluice::testing {
namespace {

Status status_of(Fault::Kind kind, const IoRequest& request) {
  const Extent& e = request.extent;
  switch (kind) {
    case Fault::Kind::eio: break;
    case Fault::Kind::shrunk:
      return error(Code::io_error, "file {}: the file shrank at offset {} (injected)", e.file.value,
                   e.offset + e.bytes / 2);
    case Fault::Kind::cancelled:
      return error(Code::cancelled, "file {}: {} bytes at offset {}: cancelled (injected)", e.file.value, e.bytes,
                   e.offset);
  }
  return error(Code::io_error, "file {}: {} bytes at offset {}: Input/output error (injected)", e.file.value, e.bytes,
               e.offset);
}

}  // namespace

void FaultyStore::set(const Fault& fault) {
  std::lock_guard lock(mutex_);
  fault_ = fault;
  armed_ = true;
  seen_[0] = seen_[1] = 0;
}

void FaultyStore::clear() {
  std::lock_guard lock(mutex_);
  armed_ = false;
}

uint64_t FaultyStore::faults() const {
  std::lock_guard lock(mutex_);
  return failed_.size();
}

uint64_t FaultyStore::seen(IoRequest::Op op) const {
  std::lock_guard lock(mutex_);
  return seen_[static_cast<size_t>(op)];
}

void FaultyStore::fail_spill(bool fail) {
  std::lock_guard lock(mutex_);
  fail_spill_ = fail;
}

Result<FileId> FaultyStore::create_spill(const std::string& directory, uint64_t bytes) {
  {
    std::lock_guard lock(mutex_);
    if (fail_spill_)
      return error(Code::io_error, "{}: cannot make a spill file of {} bytes: No space left on device (injected)",
                   directory, bytes);
  }
  return inner_.create_spill(directory, bytes);
}

bool FaultyStore::strikes(const IoRequest& request) {
  const uint64_t n = ++seen_[static_cast<size_t>(request.op)];
  return armed_ && request.op == fault_.op && (n == fault_.nth || (fault_.and_later && n > fault_.nth));
}

Event FaultyStore::fail(const IoRequest& request) {
  const uint64_t begin = fault_.kind == Fault::Kind::shrunk ? request.extent.bytes / 2 : 0;
  if (request.op == IoRequest::Op::read && request.slot != nullptr)
    std::memset(request.slot + payload_offset(request.extent) + begin, 0xEE, request.extent.bytes - begin);
  failed_.emplace_back().signal(1, status_of(fault_.kind, request));
  return Event(failed_.back(), 1);
}

void FaultyStore::submit(std::span<const IoRequest> requests, std::span<Event> events) {
  for (size_t i = 0; i < requests.size(); ++i) {
    {
      std::lock_guard lock(mutex_);
      if (strikes(requests[i])) {
        events[i] = fail(requests[i]);
        continue;
      }
    }
    inner_.submit(requests.subspan(i, 1), events.subspan(i, 1));
  }
}

StoreStats FaultyStore::stats() const {
  StoreStats stats = inner_.stats();
  stats.failed += faults();
  return stats;
}

SlowStore::SlowStore(Store& inner, const Model& model) : inner_(inner), model_(model) {
  for (uint32_t i = 0; i < model.slots; ++i) slots_.push_back(std::make_unique<Slot>());
  thread_ = std::thread(&SlowStore::run, this);
}

SlowStore::~SlowStore() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    for (auto& slot : slots_) cancel_slot(*slot);
    changed_.notify_one();
  }
  thread_.join();
}

void SlowStore::submit(std::span<const IoRequest> requests, std::span<Event> events) {
  const auto is_free = [](const auto& slot) { return !slot->busy; };
  for (size_t i = 0; i < requests.size(); ++i) {
    Lock lock(mutex_);
    freed_.wait(lock, [&] { return std::any_of(slots_.begin(), slots_.end(), is_free); });
    Slot& slot = **std::find_if(slots_.begin(), slots_.end(), is_free);
    const uint64_t now = now_ns();
    slot.op = requests[i].op;
    slot.bytes = requests[i].extent.bytes;
    const double transfer = static_cast<double>(slot.bytes) / model_.bytes_per_second * 1e9;
    // What no store will transfer takes no time on the link.
    const bool sane = slot.bytes <= inner_.size(requests[i].extent.file);
    link_free_ns_ = std::max(link_free_ns_, now) + (sane ? static_cast<uint64_t>(transfer) : 0);
    slot.due_ns = link_free_ns_ + model_.latency_ns;
    slot.busy = true;
    slot.cancelled = false;
    if (own_.in_flight++ == 0) busy_since_ns_ = now;
    inner_.submit(requests.subspan(i, 1), {&slot.inner, 1});
    events[i] = Event(slot.timeline, ++slot.generation);
    changed_.notify_one();
  }
}

void SlowStore::cancel_slot(Slot& slot) {
  if (!slot.busy || slot.cancelled) return;
  slot.cancelled = now_ns() < slot.due_ns;
  inner_.cancel({&slot.inner, 1});
}

void SlowStore::cancel(std::span<const Event> events) {
  std::lock_guard lock(mutex_);
  for (const Event& event : events)
    for (auto& slot : slots_)
      if (slot->busy && event == Event(slot->timeline, slot->generation)) cancel_slot(*slot);
  changed_.notify_one();
}

// The one that may end first, or null.
SlowStore::Slot* SlowStore::next() {
  Slot* first = nullptr;
  for (auto& slot : slots_) {
    if (!slot->busy) continue;
    if (slot->cancelled) return slot.get();
    if (first == nullptr || slot->due_ns < first->due_ns) first = slot.get();
  }
  return first;
}

void SlowStore::run() {
  Lock lock(mutex_);
  for (;;) {
    Slot* slot = next();
    if (slot == nullptr) {
      if (stopping_) return;
      changed_.wait(lock);
    } else if (const uint64_t now = now_ns(); !slot->cancelled && now < slot->due_ns) {
      changed_.wait_for(lock, std::chrono::nanoseconds(slot->due_ns - now));
    } else {
      end(lock, *slot);
    }
  }
}

// Only the thread ends slots, so this one stays busy while the lock is not held.
void SlowStore::end(Lock& lock, Slot& slot) {
  lock.unlock();
  Status status = slot.inner.wait();
  lock.lock();
  if (status.ok() && slot.cancelled) status = Status(Code::cancelled, "cancelled on its way");
  if (--own_.in_flight == 0) own_.busy_ns += now_ns() - busy_since_ns_;
  if (!status.ok()) ++own_.failed;
  if (status.ok()) ++(slot.op == IoRequest::Op::read ? own_.reads : own_.writes);
  if (status.ok()) (slot.op == IoRequest::Op::read ? own_.bytes_read : own_.bytes_written) += slot.bytes;
  slot.timeline.signal(slot.generation, status);
  slot.busy = false;
  freed_.notify_all();
}

StoreStats SlowStore::stats() const {
  const StoreStats inner = inner_.stats();
  std::lock_guard lock(mutex_);
  StoreStats stats = own_;
  stats.disk_bytes_read = inner.disk_bytes_read;
  stats.bytes_read_buffered = std::min(inner.bytes_read_buffered, stats.bytes_read);
  if (stats.in_flight > 0) stats.busy_ns += now_ns() - busy_since_ns_;
  return stats;
}

}  // namespace sluice::testing
