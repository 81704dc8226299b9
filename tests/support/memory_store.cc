#include "tests/support/memory_store.h"

#include <algorithm>
#include <cstring>

#include "core/bytes.h"
#include "core/error.h"

namespace sluice::testing {

MemoryStore::MemoryStore(const Options& options) : options_(options), random_(options.seed) {
  for (uint32_t i = 0; i < options.slots; ++i) {
    slots_.push_back(std::make_unique<Slot>());
    free_slots_.push_back(i);
  }
  thread_ = std::thread([this] { run(); });
}

MemoryStore::~MemoryStore() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    for (const uint32_t s : queue_) slots_[s]->cancelled = true;
  }
  changed_.notify_all();
  thread_.join();
}

void MemoryStore::add_file(std::string path, std::vector<std::byte> bytes) {
  std::lock_guard lock(mutex_);
  named_[std::move(path)] = std::make_shared<std::vector<std::byte>>(std::move(bytes));
}

void MemoryStore::set_fault(Fault fault) {
  std::lock_guard lock(mutex_);
  fault_ = std::move(fault);
  n_performed_ = 0;
}

void MemoryStore::hold() {
  std::lock_guard lock(mutex_);
  held_ = true;
}

void MemoryStore::resume() {
  {
    std::lock_guard lock(mutex_);
    held_ = false;
  }
  changed_.notify_all();
}

uint32_t MemoryStore::open_files() const {
  std::lock_guard lock(mutex_);
  return static_cast<uint32_t>(std::count_if(files_.begin(), files_.end(), [](const File& f) { return f.open; }));
}

Result<FileId> MemoryStore::open(const std::string& path) {
  std::lock_guard lock(mutex_);
  const auto found = named_.find(path);
  if (found == named_.end()) return error(Code::not_found, "{}: no such file", path);
  files_.push_back({found->second, true});
  return FileId{static_cast<uint32_t>(files_.size() - 1)};
}

Result<FileId> MemoryStore::create_spill(const std::string& directory, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  if (directory.starts_with("missing")) return error(Code::not_found, "{}: no such directory", directory);
  files_.push_back({std::make_shared<std::vector<std::byte>>(bytes), true});
  return FileId{static_cast<uint32_t>(files_.size() - 1)};
}

void MemoryStore::close(FileId file) {
  std::lock_guard lock(mutex_);
  SLUICE_CHECK(file.value < files_.size() && files_[file.value].open);
  files_[file.value] = File();
}

uint64_t MemoryStore::size(FileId file) const {
  std::lock_guard lock(mutex_);
  return files_.at(file.value).bytes->size();
}

void MemoryStore::submit(std::span<const IoRequest> requests, std::span<Event> events) {
  SLUICE_CHECK(requests.size() == events.size());
  std::unique_lock lock(mutex_);
  for (size_t i = 0; i < requests.size(); ++i) {
    SLUICE_CHECK(reinterpret_cast<uintptr_t>(requests[i].slot) % io_unit == 0);
    changed_.wait(lock, [this] { return !free_slots_.empty(); });
    const uint32_t s = free_slots_.back();
    free_slots_.pop_back();
    Slot& slot = *slots_[s];
    slot.request = requests[i];
    slot.busy = true;
    slot.cancelled = false;
    events[i] = Event(slot.timeline, ++slot.value);
    queue_.push_back(s);
    ++stats_.in_flight;
    changed_.notify_all();
  }
}

void MemoryStore::cancel(std::span<const Event> events) {
  {
    std::lock_guard lock(mutex_);
    for (const Event& event : events)
      for (const uint32_t s : queue_)
        if (event == Event(slots_[s]->timeline, slots_[s]->value)) slots_[s]->cancelled = true;
  }
  changed_.notify_all();
}

StoreStats MemoryStore::stats() const {
  std::lock_guard lock(mutex_);
  return stats_;
}

// The queue's index of the next request to end: cancelled ones first, none while the store is held.
size_t MemoryStore::pick() {
  for (size_t i = 0; i < queue_.size(); ++i)
    if (slots_[queue_[i]]->cancelled) return i;
  if (held_ || queue_.empty()) return queue_.size();
  return options_.shuffle ? random_() % queue_.size() : 0;
}

void MemoryStore::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    size_t next = 0;
    changed_.wait(lock, [&] { return (next = pick()) < queue_.size() || (stop_ && queue_.empty()); });
    if (queue_.empty()) return;
    const uint32_t s = queue_[next];
    queue_.erase(queue_.begin() + static_cast<std::ptrdiff_t>(next));
    Slot& slot = *slots_[s];
    const bool cancelled = slot.cancelled;
    const uint64_t n = ++n_performed_;
    lock.unlock();
    const Status status = perform(slot.request, n, cancelled);
    lock.lock();
    count(slot.request, status);
    slot.timeline.signal(slot.value, status);
    slot.busy = false;
    free_slots_.push_back(s);
    changed_.notify_all();
  }
}

Status MemoryStore::perform(const IoRequest& request, uint64_t n, bool cancelled) {
  if (cancelled)
    return error(Code::cancelled, "file {} at {}: cancelled", request.extent.file.value, request.extent.offset);
  Fault fault;
  {
    std::lock_guard lock(mutex_);
    fault = fault_;
  }
  auto time = options_.latency;
  if (options_.bytes_per_s > 0)
    time += std::chrono::nanoseconds(
        static_cast<int64_t>(1e9 * static_cast<double>(request.extent.bytes) / options_.bytes_per_s));
  if (time.count() > 0) std::this_thread::sleep_for(time);
  if (fault && fault(n, request))
    return error(Code::io_error, "file {} at {}: injected error", request.extent.file.value, request.extent.offset);
  return transfer(request);
}

Status MemoryStore::transfer(const IoRequest& request) {
  const Extent& e = request.extent;
  std::shared_ptr<std::vector<std::byte>> file;
  {
    std::lock_guard lock(mutex_);
    if (e.file.value >= files_.size() || !files_[e.file.value].open)
      return error(Code::io_error, "file {} is not open", e.file.value);
    file = files_[e.file.value].bytes;
  }
  uint64_t end = 0;
  if (!checked_add(e.offset, e.bytes, end) || end > file->size())
    return error(Code::io_error, "file {} at {}: beyond the end", e.file.value, e.offset);
  const uint64_t first = align_down(e.offset, io_unit);
  const uint64_t units = slot_bytes(e);
  const uint64_t there = std::min(units, file->size() - first);
  if (request.op == IoRequest::Op::write) {
    SLUICE_CHECK(e.offset % io_unit == 0);
    std::memcpy(file->data() + first, request.slot, there);
  } else {
    std::memcpy(request.slot, file->data() + first, there);
    std::memset(request.slot + there, 0xEE, units - there);
  }
  return {};
}

void MemoryStore::count(const IoRequest& request, const Status& status) {
  --stats_.in_flight;
  const bool read = request.op == IoRequest::Op::read;
  ++(read ? stats_.reads : stats_.writes);
  if (!status.ok()) {
    ++stats_.failed;
    return;
  }
  (read ? stats_.bytes_read : stats_.bytes_written) += request.extent.bytes;
  if (read) stats_.disk_bytes_read += slot_bytes(request.extent);
}

}  // namespace sluice::testing
