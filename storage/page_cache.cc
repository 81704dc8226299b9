#include "storage/page_cache.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "core/bytes.h"
#include "core/error.h"
#include "storage/file_handle.h"

namespace sluice::storage {
namespace {

// The ABI of cachestat(2), from include/uapi/linux/mman.h of Linux 6.5; older headers lack it.
constexpr long sys_cachestat = 451;
struct CachestatRange {
  uint64_t offset, bytes;
};
struct Cachestat {
  uint64_t cached, dirty, writeback, evicted, recently_evicted;
};

uint64_t page_bytes() {
  static const uint64_t bytes = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

// To others, mincore tells that every page is there.
bool mincore_tells_truth(int fd) {
  struct stat st;
  if (fstat(fd, &st) != 0) return false;
  if (geteuid() == 0 || st.st_uid == geteuid()) return true;
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0;
}

}  // namespace

bool cached_bytes_mincore(int fd, uint64_t offset, uint64_t bytes, uint64_t& cached) {
  if (!mincore_tells_truth(fd)) return false;
  std::array<unsigned char, 2048> resident;
  const uint64_t page = page_bytes(), window = resident.size() * page;
  const uint64_t end = offset + bytes;
  uint64_t total = 0;
  for (uint64_t at = align_down(offset, page); at < end; at += window) {
    const uint64_t length = std::min(window, align_up(end - at, page));
    void* map = mmap(nullptr, length, PROT_NONE, MAP_SHARED, fd, static_cast<off_t>(at));
    if (map == MAP_FAILED) return false;
    const bool ok = mincore(map, length, resident.data()) == 0;
    munmap(map, length);
    if (!ok) return false;
    for (uint64_t i = 0; i < length / page; ++i) {
      if ((resident[i] & 1) == 0) continue;
      total += std::min(end, at + (i + 1) * page) - std::max(offset, at + i * page);
    }
  }
  cached = total;
  return true;
}

bool cached_bytes(int fd, uint64_t offset, uint64_t bytes, uint64_t& cached) {
  if (bytes == 0) {
    cached = 0;
    return true;
  }
  const uint64_t page = page_bytes();
  const uint64_t begin = align_down(offset, page), end = align_up(offset + bytes, page);
  CachestatRange range{begin, end - begin};
  Cachestat result{};
  if (syscall(sys_cachestat, fd, &range, &result, 0u) == 0) {
    const uint64_t missing = range.bytes / page > result.cached ? range.bytes - result.cached * page : 0;
    cached = bytes - std::min(bytes, missing);
    return true;
  }
  return cached_bytes_mincore(fd, offset, bytes, cached);
}

Result<double> cached_fraction(const std::string& path, uint64_t offset, uint64_t bytes) {
  SLUICE_ASSIGN_OR_RETURN(const UniqueFd fd, open_regular(path));
  struct stat st;
  if (fstat(fd.get(), &st) != 0) return error(Code::io_error, "{}: fstat: {}", path, strerror(errno));
  const uint64_t size = static_cast<uint64_t>(st.st_size);
  if (offset >= size) return 1.0;
  bytes = std::min(bytes, size - offset);
  uint64_t cached = 0;
  if (bytes == 0) return 1.0;
  if (!cached_bytes(fd.get(), offset, bytes, cached))
    return error(Code::unavailable, "{}: the kernel does not tell what is cached of a file of somebody else", path);
  return static_cast<double>(cached) / static_cast<double>(bytes);
}

Status drop_from_page_cache(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const UniqueFd fd, open_regular(path));
  if (fdatasync(fd.get()) != 0) return error(Code::io_error, "{}: fdatasync: {}", path, strerror(errno));
  const int failed = posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
  if (failed != 0) return error(Code::io_error, "{}: posix_fadvise: {}", path, strerror(failed));
  return {};
}

}  // namespace sluice::storage
