// Where the parts of a block lie in its slot: the rule that every reader and every kernel relies on.
#include "core/block.h"

#include <doctest/doctest.h>

namespace sluice {
namespace {

TEST_CASE("block: a slot holds the whole units around an extent, at the extent's own offset within a unit") {
  for (uint64_t offset = 0; offset < 2 * io_unit; offset += 61) {
    for (const uint64_t bytes : {uint64_t{1}, uint64_t{4095}, io_unit, io_unit + 1, uint64_t{10'000}}) {
      const Extent e{FileId{0}, offset, bytes};
      const uint64_t first = offset / io_unit, last = (offset + bytes - 1) / io_unit;
      if (slot_bytes(e) != (last - first + 1) * io_unit) FAIL(offset, " ", bytes);
      if (payload_offset(e) != offset - first * io_unit) FAIL(offset, " ", bytes);
    }
  }
}

TEST_CASE("block: parts lie one behind the other, none within another's units") {
  Block block;
  block.home = {{FileId{0}, 4000, 200}, {FileId{1}, 0, 4096}, {FileId{0}, 12'289, 1}};
  CHECK(block.slot_size() == (2 + 1 + 1) * io_unit);
  CHECK(block.part_offset(0) == 4000);
  CHECK(block.part_offset(1) == 2 * io_unit);
  CHECK(block.part_offset(2) == 3 * io_unit + 1);
}

TEST_CASE("block: data that is born in memory begins its slot") {
  Block block;
  block.bytes = 1;
  CHECK(block.slot_size() == io_unit);
  CHECK(block.part_offset(0) == 0);
  block.bytes = io_unit + 1;
  CHECK(block.slot_size() == 2 * io_unit);
}

TEST_CASE("block: every kind has a name of its own") {
  for (int a = 0; a <= static_cast<int>(BlockKind::optimizer); ++a) {
    CHECK(to_string(static_cast<BlockKind>(a)) != "unknown");
    for (int b = 0; b < a; ++b) CHECK(to_string(static_cast<BlockKind>(a)) != to_string(static_cast<BlockKind>(b)));
  }
}

}  // namespace
}  // namespace sluice
