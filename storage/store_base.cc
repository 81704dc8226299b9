#include "storage/store_base.h"

#include <algorithm>

#include "core/error.h"

namespace sluice::storage {

std::string_view to_string(LoadMode mode) {
  switch (mode) {
    case LoadMode::automatic: return "auto";
    case LoadMode::direct: return "direct";
    case LoadMode::buffered: return "buffered";
  }
  return "unknown";
}

Status validate(const StoreOptions& o) {
  const auto bad = [](const char* field, uint64_t value, const char* bounds) {
    return error(Code::invalid_argument, "store: {} of {} is not {}", field, value, bounds);
  };
  if (o.slots < 1 || o.slots > 65536) return bad("slots", o.slots, "1 to 65536");
  if (o.queue_depth < 1 || o.queue_depth > 4096) return bad("queue_depth", o.queue_depth, "1 to 4096");
  if (o.pread_threads < 1 || o.pread_threads > 256) return bad("pread_threads", o.pread_threads, "1 to 256");
  if (o.ring_choice > 2) return bad("ring_choice", o.ring_choice, "0 to 2");
  if (o.piece_bytes == 0 || o.piece_bytes % io_unit != 0 || o.piece_bytes > GiB)
    return bad("piece_bytes", o.piece_bytes, "a multiple of 4096 up to 1 GiB");
  return {};
}

StoreBase::StoreBase(const StoreOptions& options)
    : options_(options), n_slots_(options.slots), slots_(new Slot[options.slots + 1]), free_(options.slots) {
  for (uint32_t i = 0; i < n_slots_; ++i) free_[i] = i;
  free_count_ = n_slots_;
  slots_[n_slots_].previous = slots_[n_slots_].following = n_slots_;
}

StoreBase::~StoreBase() = default;

// Files.

Result<FileId> StoreBase::add(std::shared_ptr<FileHandle> file, const std::string& why_buffered) {
  if (!why_buffered.empty()) warn_once(file->device() * 2 + (file->writable() ? 1 : 0), why_buffered);
  std::lock_guard lock(mutex_);
  files_.push_back(std::move(file));
  return FileId{static_cast<uint32_t>(files_.size() - 1)};
}

Result<FileId> StoreBase::open(const std::string& path) {
  std::string why_buffered;
  SLUICE_ASSIGN_OR_RETURN(auto file, FileHandle::open(path, options_.mode, why_buffered));
  return add(std::move(file), why_buffered);
}

Result<FileId> StoreBase::create_spill(const std::string& directory, uint64_t bytes) {
  std::string why_buffered;
  SLUICE_ASSIGN_OR_RETURN(auto file, FileHandle::spill(directory, bytes, options_.mode, why_buffered));
  return add(std::move(file), why_buffered);
}

void StoreBase::close(FileId file) {
  std::shared_ptr<FileHandle> closing;  // its descriptors are closed after the lock is released
  std::lock_guard lock(mutex_);
  if (file.value < files_.size()) closing = std::move(files_[file.value]);
}

uint64_t StoreBase::size(FileId file) const {
  std::lock_guard lock(mutex_);
  return file.value < files_.size() && files_[file.value] ? files_[file.value]->size() : 0;
}

void StoreBase::warn_once(uint64_t key, const std::string& line) {
  std::lock_guard lock(warnings_mutex_);
  if (std::find(warned_.begin(), warned_.end(), key) != warned_.end()) return;
  warned_.push_back(key);
  if (options_.warn) options_.warn(line);
}

std::string StoreBase::describe_files() const {
  if (options_.mode == LoadMode::buffered) return "buffered";
  size_t buffered = 0, open = 0;
  std::lock_guard lock(mutex_);
  for (const auto& file : files_) {
    open += file != nullptr;
    buffered += file != nullptr && !file->direct();
  }
  if (open > 0 && buffered == open) return "buffered";
  std::string text = options_.mode == LoadMode::automatic ? "O_DIRECT or cached" : "O_DIRECT";
  if (buffered > 0) text += fmt::format(", {} of {} files buffered", buffered, open);
  return text;
}

// Requests.

Status StoreBase::check(const IoRequest& request, std::shared_ptr<FileHandle>& file) const {
  const Extent& e = request.extent;
  const bool write = request.op == IoRequest::Op::write;
  if (e.file.value >= files_.size() || !files_[e.file.value])
    return error(Code::invalid_argument, "file {} is not open: {} of {} bytes at offset {}", e.file.value,
                 write ? "write" : "read", e.bytes, e.offset);
  file = files_[e.file.value];
  const auto refuse = [&](Code code, const char* why) {
    return error(code, "{}: {} of {} bytes at offset {}: {}", file->path(), write ? "write" : "read", e.bytes, e.offset,
                 why);
  };
  uint64_t end = 0;
  if (!checked_add(e.offset, e.bytes, end)) return refuse(Code::invalid_argument, "the range wraps");
  if (end > file->size()) return refuse(Code::io_error, "past the end of the file");
  if (reinterpret_cast<uintptr_t>(request.slot) % io_unit != 0 || (request.slot == nullptr && e.bytes != 0))
    return refuse(Code::invalid_argument, "the memory is not aligned to 4096 bytes");
  if (write && !file->writable()) return refuse(Code::invalid_argument, "the file is open for reading only");
  if (write && payload_offset(e) != 0) return refuse(Code::invalid_argument, "writes begin at a multiple of 4096");
  return {};
}

uint32_t StoreBase::take_slot(Lock& lock) {
  if (free_count_ == 0) {
    lock.unlock();
    wake();  // what this call has already listed must move on
    lock.lock();
    slot_free_.wait(lock, [this] { return free_count_ > 0; });
  }
  const uint32_t index = free_[free_head_];
  free_head_ = (free_head_ + 1) % n_slots_;
  --free_count_;
  return index;
}

void StoreBase::start(uint32_t index, const IoRequest& request, std::shared_ptr<FileHandle> file) {
  Slot& s = slots_[index];
  ++s.generation;
  s.request = request;
  s.file = std::move(file);
  s.next = align_down(request.extent.offset, io_unit);
  s.end = s.next + slot_bytes(request.extent);
  s.pieces = 0;
  s.active = true;
  s.stop.store(false, std::memory_order_relaxed);
  s.cancelled = false;
  s.failure = {};
  s.started_ns = now_ns();
  s.buffered_payload = 0;
  if (stats_.in_flight++ == 0) busy_since_ns_ = s.started_ns;
}

void StoreBase::submit(std::span<const IoRequest> requests, std::span<Event> events) {
  SLUICE_CHECK(requests.size() == events.size());
  bool listed = false;
  {
    Lock lock(mutex_);
    for (size_t i = 0; i < requests.size(); ++i) {
      const uint32_t index = take_slot(lock);
      std::shared_ptr<FileHandle> file;
      Status status = check(requests[i], file);
      start(index, requests[i], std::move(file));
      Slot& s = slots_[index];
      events[i] = Event(s.timeline, s.generation);
      if (status.ok() && requests[i].extent.bytes != 0) {
        append(index);
        piece_ready_.notify_one();
        listed = true;
      } else {
        finish(lock, index, std::move(status));
      }
    }
  }
  if (listed) wake();
}

void StoreBase::cancel(std::span<const Event> events) {
  {
    Lock lock(mutex_);
    for (const Event& event : events) {
      if (event.done()) continue;
      for (uint32_t i = 0; i < n_slots_; ++i) {
        if (!slots_[i].active || !(event == Event(slots_[i].timeline, slots_[i].generation))) continue;
        cancel_slot(lock, i);
        break;
      }
    }
  }
  wake();
}

void StoreBase::cancel_slot(Lock& lock, uint32_t index) {
  Slot& s = slots_[index];
  s.stop.store(true, std::memory_order_relaxed);
  if (!s.listed) return;
  remove(index);
  s.cancelled = true;
  if (s.pieces == 0) finish(lock, index, {});
}

void StoreBase::stop() {
  {
    Lock lock(mutex_);
    stopping_ = true;
    for (uint32_t i = 0; i < n_slots_; ++i)
      if (slots_[i].active) cancel_slot(lock, i);
    piece_ready_.notify_all();
  }
  wake();
}

bool StoreBase::idle() const {
  std::lock_guard lock(mutex_);
  return stopping_ && free_count_ == n_slots_;
}

// Pieces.

void StoreBase::append(uint32_t index) {
  Slot& head = slots_[n_slots_];
  slots_[index].previous = head.previous;
  slots_[index].following = n_slots_;
  slots_[head.previous].following = index;
  head.previous = index;
  slots_[index].listed = true;
}

void StoreBase::remove(uint32_t index) {
  Slot& s = slots_[index];
  slots_[s.previous].following = s.following;
  slots_[s.following].previous = s.previous;
  s.listed = false;
}

bool StoreBase::cut_piece(Piece& piece) {
  const uint32_t index = slots_[n_slots_].following;
  if (index == n_slots_) return false;
  Slot& s = slots_[index];
  const Extent& e = s.request.extent;
  const uint64_t bytes = std::min(options_.piece_bytes, s.end - s.next);
  const uint64_t payload_end = std::min(s.next + bytes, e.offset + e.bytes);
  piece = {};
  piece.slot = index;
  piece.file = s.file.get();
  piece.write = s.request.op == IoRequest::Op::write;
  piece.at = s.request.slot + (s.next - align_down(e.offset, io_unit));
  piece.offset = s.next;
  piece.bytes = bytes;
  piece.needed = piece.write ? bytes : payload_end - s.next;
  piece.payload = payload_end - std::max(s.next, e.offset);
  s.next += bytes;
  ++s.pieces;
  if (s.next == s.end) remove(index);
  return true;
}

void StoreBase::choose_path(Piece& piece) const {
  piece.direct = piece.file->direct();
  if (piece.direct && !piece.write && options_.mode == LoadMode::automatic)
    piece.direct = !piece.file->is_cached(piece.offset, piece.needed);
}

bool StoreBase::next_piece(Piece& piece) {
  {
    std::lock_guard lock(mutex_);
    if (!cut_piece(piece)) return false;
  }
  choose_path(piece);
  return true;
}

bool StoreBase::wait_piece(Piece& piece) {
  {
    Lock lock(mutex_);
    bool cut = false;
    piece_ready_.wait(lock, [&] { return (cut = cut_piece(piece)) || stopping_; });
    if (!cut) return false;
    if (slots_[n_slots_].following != n_slots_) piece_ready_.notify_one();
  }
  choose_path(piece);
  return true;
}

Step StoreBase::advance_piece(Piece& piece, int64_t result, Status& why) {
  bool lost_direct = false;
  const Step step = advance(piece, result, stopped(piece), why, lost_direct);
  if (lost_direct)
    warn_once(reinterpret_cast<uintptr_t>(piece.file),
              piece.file->path() + ": direct I/O was refused, so it goes through the page cache from here on");
  return step;
}

void StoreBase::finish_piece(const Piece& piece, Step step, const Status& why) {
  Lock lock(mutex_);
  Slot& s = slots_[piece.slot];
  --s.pieces;
  if (!piece.write) stats_.disk_bytes_read += piece.moved;
  if (!piece.direct) s.buffered_payload += piece.payload;
  if (step == Step::cancelled) s.cancelled = true;
  if (step == Step::failed && s.failure.ok()) s.failure = why;
  if (step != Step::done) {
    s.stop.store(true, std::memory_order_relaxed);
    if (s.listed) remove(piece.slot);
  }
  if (s.pieces == 0 && !s.listed) finish(lock, piece.slot, s.failure);
}

// Called with the lock, and returns with it, but not held in between.
void StoreBase::finish(Lock& lock, uint32_t index, Status status) {
  Slot& s = slots_[index];
  s.active = false;
  lock.unlock();
  if (status.ok() && s.cancelled)
    status = error(Code::cancelled, "{}: {} bytes at offset {}: cancelled", s.file->path(), s.request.extent.bytes,
                   s.request.extent.offset);
  if (status.ok() && s.request.op == IoRequest::Op::read && s.file) status = s.file->unchanged();
  s.file.reset();
  lock.lock();
  count(s, status);
  lock.unlock();
  s.timeline.signal(s.generation, status);
  lock.lock();
  free_[(free_head_ + free_count_) % n_slots_] = index;
  ++free_count_;
  slot_free_.notify_one();
}

void StoreBase::count(const Slot& s, const Status& status) {
  const bool write = s.request.op == IoRequest::Op::write;
  const uint64_t bytes = s.request.extent.bytes, now = now_ns();
  if (--stats_.in_flight == 0) stats_.busy_ns += now - busy_since_ns_;
  if (!status.ok()) {
    ++stats_.failed;
    return;
  }
  ++(write ? stats_.writes : stats_.reads);
  (write ? stats_.bytes_written : stats_.bytes_read) += bytes;
  if (!write) stats_.bytes_read_buffered += s.buffered_payload;
  // Spans of one lane do not overlap: each takes the time since the one before it ended.
  const uint64_t begin = std::max(s.started_ns, lane_end_ns_);
  lane_end_ns_ = now;
  if (options_.trace == nullptr) return;
  const char* name = write ? "write" : s.buffered_payload == bytes ? "read cached" : "read";
  options_.trace->record({"disk", name, begin, now, bytes, 0});
}

StoreStats StoreBase::stats() const {
  std::lock_guard lock(mutex_);
  StoreStats result = stats_;
  if (result.in_flight > 0) result.busy_ns += now_ns() - busy_since_ns_;
  return result;
}

}  // namespace sluice::storage
