// What the kernel's page cache holds of a file.
//
// Sources: cachestat(2) since Linux 6.5, mincore(2) before. Both tell only those who own the file or may
// write it.
#pragma once

#include <cstdint>
#include <string>

#include "sluice/status.h"

namespace sluice::storage {

// Bytes of [offset, offset + bytes), a range within the file, that lie in cached pages; false where the
// kernel does not tell. A page that lies partly in the range may count whole as missing, never as cached.
// Reads nothing into the cache, allocates nothing.
bool cached_bytes(int fd, uint64_t offset, uint64_t bytes, uint64_t& cached);

// The same by mincore alone, for kernels without cachestat.
bool cached_bytes_mincore(int fd, uint64_t offset, uint64_t bytes, uint64_t& cached);

// Part of the range that is cached, 0 to 1; the range is cut at the file's end, and an empty one counts
// as cached. not_found and io_error name the path, unavailable says that the kernel does not tell.
Result<double> cached_fraction(const std::string& path, uint64_t offset = 0, uint64_t bytes = UINT64_MAX);

// Writes the file's dirty pages back and drops its pages from the cache, but for those in use.
Status drop_from_page_cache(const std::string& path);

}  // namespace sluice::storage
