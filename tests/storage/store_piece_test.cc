#include "storage/piece.h"

#include <doctest/doctest.h>

#include <cerrno>
#include <cstring>
#include <random>
#include <vector>

#include "core/block.h"
#include "tests/storage/store_contract.h"

namespace sluice::testing {
namespace {

using storage::advance;
using storage::FileHandle;
using storage::LoadMode;
using storage::Piece;
using storage::Step;

constexpr uint64_t file_bytes = 200'000;

struct OpenedFile {
  TempDir directory;
  std::string path = directory.file("f");
  std::shared_ptr<FileHandle> handle;
  OpenedFile() {
    write_pattern_file(path, file_bytes, 3);
    std::string why;
    handle = *FileHandle::open(path, LoadMode::direct, why);
  }
};

Piece piece_of(FileHandle& file, const Extent& e, std::byte* slot) {
  Piece p;
  p.file = &file;
  p.direct = true;
  p.at = slot;
  p.offset = align_down(e.offset, io_unit);
  p.bytes = slot_bytes(e);
  p.needed = payload_offset(e) + e.bytes;
  p.payload = e.bytes;
  return p;
}

// What a kernel may answer: the file's bytes, as many as it likes, or a reason to try again.
int64_t whimsical_read(const Piece& p, std::mt19937& random) {
  if (p.direct) CHECK(p.offset % io_unit == 0);
  if (p.direct) CHECK(reinterpret_cast<uintptr_t>(p.at) % io_unit == 0);
  constexpr int excuses[] = {EINTR, EAGAIN, ECANCELED};
  if (random() % 3 == 0) return -excuses[random() % 3];
  if (p.offset >= file_bytes) return 0;
  const uint64_t there = std::min(p.bytes, file_bytes - p.offset);
  const uint64_t count = random() % 2 == 0 ? there : 1 + random() % there;
  fill_pattern({p.at, static_cast<size_t>(count)}, p.offset, 3);
  return static_cast<int64_t>(count);
}

TEST_CASE("store piece: short and interrupted reads end with every byte") {
  OpenedFile file;
  std::mt19937 random(5);
  for (int round = 0; round < 500; ++round) {
    const uint64_t offset = random() % file_bytes;
    const Extent e{FileId{0}, offset, 1 + random() % (file_bytes - offset)};
    SlotMemory memory(e);
    Piece p = piece_of(*file.handle, e, memory.slot());
    Status why;
    bool lost = false;
    Step step = Step::again;
    for (int calls = 0; step == Step::again && calls < 10'000; ++calls)
      step = advance(p, whimsical_read(p, random), false, why, lost);
    REQUIRE(step == Step::done);
    CHECK(memory.holds(3));
    CHECK(memory.guards_intact());
    CHECK(!lost);
    CHECK(p.moved >= p.payload);
  }
}

TEST_CASE("store piece: the end of the file before the payload's end is an error") {
  OpenedFile file;
  const Extent e{FileId{0}, 8192, 10'000};
  SlotMemory memory(e);
  Status why;
  bool lost = false;
  Piece p = piece_of(*file.handle, e, memory.slot());
  CHECK(advance(p, 5000, false, why, lost) == Step::again);
  CHECK(!p.direct);  // a direct read could not begin at 13192
  CHECK(p.offset == 13192);
  CHECK(advance(p, 0, false, why, lost) == Step::failed);
  CHECK(why.code() == Code::io_error);
  CHECK(why.message().find(file.path) != std::string::npos);
  CHECK(why.message().find("13192") != std::string::npos);
  CHECK(why.message().find("shrank") != std::string::npos);

  p = piece_of(*file.handle, e, memory.slot());
  CHECK(advance(p, 10'000, false, why, lost) == Step::done);  // the rest of the unit is not needed
}

TEST_CASE("store piece: errors name path and offset") {
  OpenedFile file;
  const Extent e{FileId{0}, 4096, 8192};
  SlotMemory memory(e);
  for (const int code : {EIO, ENOSPC, EBADF}) {
    for (const bool write : {false, true}) {
      Status why;
      bool lost = false;
      Piece p = piece_of(*file.handle, e, memory.slot());
      p.write = write;
      CHECK(advance(p, 4096, false, why, lost) == Step::again);
      CHECK(p.direct);
      CHECK(advance(p, -code, false, why, lost) == Step::failed);
      CHECK(why.code() == Code::io_error);
      CHECK(why.message().find(file.path) != std::string::npos);
      CHECK(why.message().find("8192") != std::string::npos);
      CHECK(why.message().find(write ? "write" : "read") != std::string::npos);
      CHECK(why.message().find(strerror(code)) != std::string::npos);
    }
  }
}

TEST_CASE("store piece: refused direct I/O goes on through the page cache, told once a file") {
  OpenedFile file;
  REQUIRE(file.handle->direct());  // the build directory is expected on a disk
  const Extent e{FileId{0}, 4096, 8192};
  SlotMemory memory(e);
  Status why;
  for (const bool first : {true, false}) {
    bool lost = false;
    Piece p = piece_of(*file.handle, e, memory.slot());
    CHECK(advance(p, -EINVAL, false, why, lost) == Step::again);
    CHECK(lost == first);
    CHECK(!p.direct);
    CHECK(!file.handle->direct());
    CHECK(advance(p, -EINVAL, false, why, lost) == Step::failed);
  }
}

TEST_CASE("store piece: what nobody wants ends early, and endless excuses end too") {
  OpenedFile file;
  const Extent e{FileId{0}, 4096, 8192};
  SlotMemory memory(e);
  Status why;
  bool lost = false;
  for (const int code : {ECANCELED, EINTR, EAGAIN}) {
    Piece p = piece_of(*file.handle, e, memory.slot());
    CHECK(advance(p, -code, true, why, lost) == Step::cancelled);
  }
  Piece p = piece_of(*file.handle, e, memory.slot());
  CHECK(advance(p, 4096, true, why, lost) == Step::cancelled);
  p = piece_of(*file.handle, e, memory.slot());
  CHECK(advance(p, 8192, true, why, lost) == Step::done);
  p = piece_of(*file.handle, e, memory.slot());
  int calls = 0;
  while (advance(p, -EAGAIN, false, why, lost) == Step::again) REQUIRE(++calls < 100'000);
  CHECK(why.code() == Code::io_error);
}

}  // namespace
}  // namespace sluice::testing
