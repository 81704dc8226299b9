#include "storage/piece.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/block.h"
#include "core/error.h"

namespace sluice::storage {
namespace {

constexpr uint32_t max_retries = 1000;

Step fail(const Piece& p, const char* what, Status& why) {
  why = error(Code::io_error, "{}: {} at offset {} failed: {}", p.file->path(), p.write ? "write" : "read", p.offset,
              what);
  return Step::failed;
}

Step end_of_file(const Piece& p, Status& why) {
  if (p.write) return fail(p, "nothing was written", why);
  why = error(Code::io_error, "{}: the file shrank while in use: no bytes at offset {} of what were {}", p.file->path(),
              p.offset, p.file->size());
  return Step::failed;
}

Step moved(Piece& p, uint64_t count, bool stop) {
  count = std::min(count, p.bytes);
  p.at += count;
  p.offset += count;
  p.bytes -= count;
  p.needed -= std::min(count, p.needed);
  p.moved += count;
  p.retries = 0;
  if (p.needed == 0) return Step::done;
  if (p.offset % io_unit != 0) p.direct = false;
  return stop ? Step::cancelled : Step::again;
}

}  // namespace

Step advance(Piece& p, int64_t result, bool stop, Status& why, bool& lost_direct) {
  if (result > 0) return moved(p, static_cast<uint64_t>(result), stop);
  if (result == 0) return end_of_file(p, why);
  const bool interrupted = result == -EINTR || result == -EAGAIN || result == -ECANCELED;
  if (interrupted && stop) return Step::cancelled;
  if (interrupted && ++p.retries <= max_retries) return Step::again;
  if (result == -EINVAL && p.direct) {
    lost_direct = p.file->give_up_direct();
    p.direct = false;
    return Step::again;
  }
  return fail(p, strerror(static_cast<int>(-result)), why);
}

}  // namespace sluice::storage
