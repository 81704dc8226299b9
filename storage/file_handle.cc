#include "storage/file_handle.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "core/block.h"
#include "core/error.h"
#include "storage/page_cache.h"

namespace sluice::storage {
namespace {

constexpr long tmpfs_magic = 0x01021994, ramfs_magic = 0x858458f6L;  // linux/magic.h

bool lives_in_memory(int fd) {
  struct statfs fs;
  return fstatfs(fd, &fs) == 0 && (fs.f_type == tmpfs_magic || fs.f_type == ramfs_magic);
}

// Why direct I/O in whole io_units cannot be had from an open file, or nullptr.
const char* direct_refused(int fd) {
  struct statx st;
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) != 0) return "statx tells no alignment";
  if ((st.stx_mask & STATX_DIOALIGN) == 0) return "its file system, or a kernel before 6.1, tells no alignment";
  if (st.stx_dio_mem_align == 0) return "its file system has none";
  if (io_unit % st.stx_dio_mem_align != 0 || io_unit % st.stx_dio_offset_align != 0)
    return "it needs more than 4096 bytes of alignment";
  return nullptr;
}

// The file behind `fd` once more, as another open file with other flags.
UniqueFd reopen(int fd, int flags) {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return UniqueFd(::open(path, flags | O_CLOEXEC));
}

UniqueFd open_nameless(const std::string& directory) {
  UniqueFd fd(::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd.valid() || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) return fd;
  std::string name = directory + "/sluice-spill-XXXXXX";
  fd = UniqueFd(mkostemp(name.data(), O_CLOEXEC));
  if (fd.valid()) unlink(name.c_str());
  return fd;
}

// Returns an errno, 0 for done. Space in memory is not reserved: it would be taken at once.
int set_size(int fd, uint64_t bytes) {
  struct statfs fs;
  if (bytes > static_cast<uint64_t>(INT64_MAX)) return EFBIG;
  if (fstatfs(fd, &fs) != 0) return errno;
  uint64_t available = 0;
  const bool bounded = fs.f_blocks != 0;  // ramfs, for one, is not
  if (bounded && checked_mul(fs.f_bavail, static_cast<uint64_t>(fs.f_bsize), available) && bytes > available)
    return ENOSPC;
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0) return errno;
  if (bytes == 0 || lives_in_memory(fd)) return 0;
  if (fallocate(fd, 0, 0, static_cast<off_t>(bytes)) == 0 || errno == EOPNOTSUPP || errno == ENOSYS) return 0;
  return errno;
}

Status spill_error(const std::string& directory, uint64_t bytes, int code) {
  return error(Code::io_error, "{}: cannot make a spill file of {} bytes ({}): {}; {}", directory, bytes,
               format_size(bytes), strerror(code),
               code == ENOSPC ? "free some space there or name another directory" : "name another directory");
}

}  // namespace

UniqueFd::~UniqueFd() {
  if (fd_ >= 0) ::close(fd_);
}

Result<UniqueFd> open_regular(const std::string& path) {
  // O_NONBLOCK so that a pipe does not wait for its writer; io_uring would obey it later, so it goes again.
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) {
    const Code code = errno == ENOENT || errno == ENOTDIR ? Code::not_found : Code::io_error;
    return error(code, "{}: cannot be opened: {}", path, strerror(errno));
  }
  struct stat st;
  if (fstat(fd.get(), &st) != 0) return error(Code::io_error, "{}: fstat: {}", path, strerror(errno));
  if (!S_ISREG(st.st_mode)) return error(Code::invalid_argument, "{}: not a regular file", path);
  if (fcntl(fd.get(), F_SETFL, 0) != 0) return error(Code::io_error, "{}: fcntl: {}", path, strerror(errno));
  return fd;
}

void FileHandle::open_direct(std::string& why_buffered) {
  const char* reason = direct_refused(buffered_.get());
  if (reason == nullptr) {
    direct_ = reopen(buffered_.get(), (writable_ ? O_RDWR : O_RDONLY) | O_DIRECT);
    if (!direct_.valid()) reason = strerror(errno);
  }
  if (reason == nullptr) use_direct_ = true;
  else
    why_buffered = fmt::format(
        "{}: no direct I/O ({}), so it goes through the page cache, in memory beside the budget; a local file "
        "system such as ext4 or xfs avoids that, and --load buffered this warning",
        path_, reason);
}

Result<std::shared_ptr<FileHandle>> FileHandle::open(const std::string& path, LoadMode mode,
                                                     std::string& why_buffered) {
  std::shared_ptr<FileHandle> file(new FileHandle);
  SLUICE_ASSIGN_OR_RETURN(file->buffered_, open_regular(path));
  file->path_ = path;
  struct stat st;
  if (fstat(file->buffered_.get(), &st) != 0) return error(Code::io_error, "{}: fstat: {}", path, strerror(errno));
  file->size_ = static_cast<uint64_t>(st.st_size);
  file->device_ = st.st_dev;
  file->modified_ = st.st_mtim;
  if (mode == LoadMode::buffered) return file;
  file->open_direct(why_buffered);
  if (!file->direct()) return file;
  // Buffered reads are then only of what is cached: reading ahead of them would fill the cache.
  posix_fadvise(file->buffered_.get(), 0, 0, POSIX_FADV_RANDOM);
  uint64_t cached = 0;
  file->cache_visible_ = mode == LoadMode::automatic && cached_bytes(file->buffered_.get(), 0, 1, cached);
  if (mode == LoadMode::automatic && !file->cache_visible_)
    why_buffered = fmt::format(
        "{}: the kernel tells only a file's owner what is cached of it, so all of it is read from the disk; "
        "--load buffered uses the page cache",
        path);
  return file;
}

Result<std::shared_ptr<FileHandle>> FileHandle::spill(const std::string& directory, uint64_t bytes, LoadMode mode,
                                                      std::string& why_buffered) {
  if (bytes > static_cast<uint64_t>(INT64_MAX) - io_unit) return spill_error(directory, bytes, EFBIG);
  std::shared_ptr<FileHandle> file(new FileHandle);
  file->path_ = "spill file in " + directory;
  file->size_ = bytes;
  file->writable_ = true;
  file->buffered_ = open_nameless(directory);
  if (!file->buffered_.valid()) return spill_error(directory, bytes, errno);
  if (const int failed = set_size(file->buffered_.get(), align_up(bytes, io_unit)); failed != 0)
    return spill_error(directory, bytes, failed);
  struct stat st;
  if (fstat(file->buffered_.get(), &st) == 0) file->device_ = st.st_dev;
  if (lives_in_memory(file->buffered_.get()))
    why_buffered = fmt::format(
        "{}: spilled data stays in memory, for this is a memory file system; name a directory on a disk", directory);
  else if (mode != LoadMode::buffered) file->open_direct(why_buffered);
  return file;
}

bool FileHandle::is_cached(uint64_t offset, uint64_t bytes) const {
  if (!cache_visible_ || offset >= size_) return false;
  if (bytes > size_ - offset) bytes = size_ - offset;
  uint64_t cached = 0;
  return cached_bytes(buffered_.get(), offset, bytes, cached) && cached >= bytes;
}

Status FileHandle::unchanged() const {
  if (writable_) return {};
  struct stat st;
  if (fstat(buffered_.get(), &st) != 0) return error(Code::io_error, "{}: fstat: {}", path_, strerror(errno));
  const bool same_time = st.st_mtim.tv_sec == modified_.tv_sec && st.st_mtim.tv_nsec == modified_.tv_nsec;
  if (same_time && static_cast<uint64_t>(st.st_size) == size_) return {};
  return error(Code::io_error, "{}: the file was changed while in use ({} bytes, now {}); open it again", path_, size_,
               st.st_size);
}

}  // namespace sluice::storage
