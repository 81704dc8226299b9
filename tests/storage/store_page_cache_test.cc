#include <doctest/doctest.h>
#include <unistd.h>

#include <random>
#include <vector>

#include "core/bytes.h"
#include "storage/file_handle.h"
#include "storage/page_cache.h"
#include "tests/storage/store_contract.h"

namespace sluice::testing {
namespace {

using namespace storage;

TEST_CASE("page cache: a file is cached when written, and gone after dropping it") {
  const TempDir directory;
  const std::string path = directory.file("f");
  write_pattern_file(path, MiB + 100, 1);
  CHECK(*cached_fraction(path) == 1.0);
  CHECK(*cached_fraction(path, 5000, 1) == 1.0);
  CHECK(*cached_fraction(path, 2 * MiB, 10) == 1.0);  // past the end: nothing is missing
  REQUIRE(drop_from_page_cache(path).ok());
  CHECK(*cached_fraction(path) < 0.05);
  CHECK(cached_fraction(directory.file("none")).status().code() == Code::not_found);
  CHECK(drop_from_page_cache(directory.file("none")).code() == Code::not_found);
  CHECK(cached_fraction(directory.path()).status().code() == Code::invalid_argument);
}

TEST_CASE("page cache: both ways to ask agree about single pages") {
  const TempDir directory;
  const std::string path = directory.file("f");
  constexpr uint64_t pages = 300, bytes = pages * 4096;
  write_pattern_file(path, bytes, 1);
  REQUIRE(drop_from_page_cache(path).ok());
  std::string why;
  auto file = *FileHandle::open(path, LoadMode::automatic, why);  // advises against reading ahead
  std::mt19937 random(1);
  for (int i = 0; i < 60; ++i) {
    char byte;
    REQUIRE(pread(file->fd(false), &byte, 1, static_cast<off_t>(random() % bytes)) == 1);
  }
  uint64_t all = 0;
  REQUIRE(cached_bytes(file->fd(false), 0, bytes, all));
  CHECK(all > 0);
  CHECK(all < bytes);
  for (int i = 0; i < 300; ++i) {
    const uint64_t first = random() % pages, n = 1 + random() % (pages - first);
    uint64_t one = 0, two = 1;
    REQUIRE(cached_bytes(file->fd(false), first * 4096, n * 4096, one));
    REQUIRE(cached_bytes_mincore(file->fd(false), first * 4096, n * 4096, two));
    CHECK(one == two);
    CHECK(file->is_cached(first * 4096, n * 4096) == (one == n * 4096));
  }
  // A range that touches a missing page is not wholly cached, however little of the page it touches.
  for (uint64_t page = 0; page + 1 < pages; ++page) {
    uint64_t both = 0;
    REQUIRE(cached_bytes_mincore(file->fd(false), page * 4096, 8192, both));
    CHECK(file->is_cached(page * 4096 + 4095, 2) == (both == 8192));
  }
}

}  // namespace
}  // namespace sluice::testing
