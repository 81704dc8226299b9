// StoreBase: what all Stores on files share: open files, slots, the cutting of requests into pieces,
// cancellation and counts. An engine below it (a ring, a pool of threads) takes pieces, moves them and
// hands back how they ended.
//
// Invariants
// - A slot is free, waiting (in the list, with bytes not yet handed out as pieces), moving (all handed
//   out or stopped, pieces with the engine) or finishing (one thread signals its Event and frees it).
// - Requests leave the list in the order in which they came; only the first may be partly handed out.
// - A slot that failed or was cancelled is not in the list; it finishes when its last piece came back.
// - A request holds its file open; it lets go before its Event signals.
// Threads: any for the Store's functions; engines call the protected ones from their own threads. One
// mutex guards slots, files and counts, and is not held during system calls on files.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/store.h"
#include "storage/file_handle.h"
#include "storage/piece.h"
#include "storage/store_options.h"

namespace sluice::storage {

class StoreBase : public Store {
 public:
  ~StoreBase() override;

  Result<FileId> open(const std::string& path) override;
  Result<FileId> create_spill(const std::string& directory, uint64_t bytes) override;
  void close(FileId file) override;  // requests in flight keep the file open until they end
  uint64_t size(FileId file) const override;
  void submit(std::span<const IoRequest> requests, std::span<Event> events) override;
  void cancel(std::span<const Event> events) override;
  void use_region(std::span<std::byte>) override {}
  StoreStats stats() const override;

 protected:
  explicit StoreBase(const StoreOptions& options);

  // The engine has work, or something was cancelled. Called from any thread, without the lock.
  virtual void wake() = 0;

  // The next piece to move, or false if there is none now.
  bool next_piece(Piece& piece);
  // The same, but sleeps until there is one; false once stopping.
  bool wait_piece(Piece& piece);
  // How a piece ended; `step` is not again. With a request's last piece its Event signals.
  void finish_piece(const Piece& piece, Step step, const Status& why);
  // Whether what is left of a piece's request is not wanted any more.
  bool stopped(const Piece& piece) const { return slots_[piece.slot].stop.load(std::memory_order_relaxed); }
  // advance(), with a warning where it lost direct I/O.
  Step advance_piece(Piece& piece, int64_t result, Status& why);

  // Cancels everything and makes wait_piece() return false; submit() must not be called any more.
  void stop();
  bool idle() const;  // nothing in flight and stop() was called

  void warn_once(uint64_t key, const std::string& line);
  std::string describe_files() const;  // "O_DIRECT", "buffered", …
  const StoreOptions& options() const { return options_; }

 private:
  struct Slot {
    Timeline timeline;
    uint64_t generation = 0;  // of the request in it, or the last that was
    IoRequest request;
    std::shared_ptr<FileHandle> file;
    uint64_t next = 0, end = 0;  // file offsets of whole units: not yet handed out
    uint32_t pieces = 0;         // with the engine
    bool active = false;         // from submission until finishing begins
    bool listed = false;
    std::atomic<bool> stop{false};
    bool cancelled = false;
    Status failure;
    uint64_t started_ns = 0, buffered_payload = 0;
    uint32_t previous = 0, following = 0;  // in the list
  };
  using Lock = std::unique_lock<std::mutex>;

  Result<FileId> add(std::shared_ptr<FileHandle> file, const std::string& why_buffered);
  uint32_t take_slot(Lock& lock);
  Status check(const IoRequest& request, std::shared_ptr<FileHandle>& file) const;
  void start(uint32_t index, const IoRequest& request, std::shared_ptr<FileHandle> file);
  void cancel_slot(Lock& lock, uint32_t index);
  bool cut_piece(Piece& piece);
  void choose_path(Piece& piece) const;
  void append(uint32_t index);
  void remove(uint32_t index);
  void finish(Lock& lock, uint32_t index, Status status);
  void count(const Slot& slot, const Status& status);

  const StoreOptions options_;
  const uint32_t n_slots_;
  std::unique_ptr<Slot[]> slots_;  // one more than the requests: the last is the list's head

  mutable std::mutex mutex_;
  std::condition_variable slot_free_, piece_ready_;
  std::vector<uint32_t> free_;  // a ring, so that all slots' Timelines share the work
  uint32_t free_head_ = 0, free_count_ = 0;
  std::vector<std::shared_ptr<FileHandle>> files_;  // by FileId; null once closed
  StoreStats stats_;
  uint64_t busy_since_ns_ = 0, lane_end_ns_ = 0;
  bool stopping_ = false;

  std::mutex warnings_mutex_;
  std::vector<uint64_t> warned_;
};

}  // namespace sluice::storage
