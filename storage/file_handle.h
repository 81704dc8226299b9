// The files behind a Store's FileIds: their descriptors, and how each may be read.
#pragma once

#include <atomic>
#include <cstdint>
#include <ctime>
#include <memory>
#include <string>
#include <utility>

#include "sluice/status.h"
#include "storage/store_options.h"

namespace sluice::storage {

// Owns a file descriptor.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~UniqueFd();
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// Opens a regular file for buffered reading; never waits on a pipe or device. not_found if there is no
// such file, else io_error or invalid_argument (not a regular file); all name the path.
Result<UniqueFd> open_regular(const std::string& path);

// An open file: one descriptor through the page cache and, where the file system can, one around it.
// Immutable but for the two flags. Threads: any. The descriptors are closed with the object.
class FileHandle {
 public:
  // A file to read. `why_buffered` receives one line if direct I/O was wanted and cannot be had.
  static Result<std::shared_ptr<FileHandle>> open(const std::string& path, LoadMode mode, std::string& why_buffered);

  // A nameless file to read and write, its space reserved where the file system can. io_error names the
  // directory and the bytes.
  static Result<std::shared_ptr<FileHandle>> spill(const std::string& directory, uint64_t bytes, LoadMode mode,
                                                   std::string& why_buffered);

  const std::string& path() const { return path_; }  // of a spill: "spill file in DIRECTORY"
  uint64_t size() const { return size_; }            // when it was opened
  uint64_t device() const { return device_; }
  bool writable() const { return writable_; }
  int fd(bool direct) const { return direct ? direct_.get() : buffered_.get(); }

  bool direct() const { return use_direct_.load(std::memory_order_relaxed); }
  // After a direct read or write was refused: use the page cache from now on. True for the first caller.
  bool give_up_direct() { return use_direct_.exchange(false); }

  // Whether a range is wholly in the page cache, as far as the kernel tells.
  bool is_cached(uint64_t offset, uint64_t bytes) const;
  bool cache_visible() const { return cache_visible_; }

  // ok if a file that is read has the size and modification time that it had when it was opened.
  Status unchanged() const;

 private:
  FileHandle() = default;
  void open_direct(std::string& why_buffered);

  std::string path_;
  uint64_t size_ = 0, device_ = 0;
  timespec modified_{};
  bool writable_ = false;
  bool cache_visible_ = false;
  std::atomic<bool> use_direct_{false};
  UniqueFd buffered_, direct_;
};

}  // namespace sluice::storage
