// A piece: one contiguous part of a request, moved by one system call at a time until it is whole.
#pragma once

#include <cstddef>
#include <cstdint>

#include "sluice/status.h"
#include "storage/file_handle.h"

namespace sluice::storage {

struct Piece {
  uint32_t slot = 0;           // of the request
  FileHandle* file = nullptr;  // kept open by the request
  bool write = false;
  bool direct = false;      // through the descriptor that goes around the page cache
  std::byte* at = nullptr;  // where the next byte goes to or comes from
  uint64_t offset = 0;      // of the next byte in the file
  uint64_t bytes = 0;       // still to ask for, to the end of the last whole unit
  uint64_t needed = 0;      // of those, what must be moved: the others may lie past the file's end
  uint64_t payload = 0;     // bytes of the request's extent in this piece
  uint64_t moved = 0;       // by all calls so far
  uint32_t retries = 0;     // since the last byte moved
};

enum class Step : uint8_t { again, done, failed, cancelled };

// Takes the result of one call on the piece (bytes moved, or -errno) and says what comes next: again, with
// the piece changed to what is left, or its end. `stop` says that nobody wants the rest. Failed sets
// `why`, an io_error naming path and offset. A refused direct call sets `lost_direct` if it is the file's
// first, and is made again through the page cache.
Step advance(Piece& piece, int64_t result, bool stop, Status& why, bool& lost_direct);

}  // namespace sluice::storage
