// Blocks: the immutable identity of a piece of data that moves between tiers.
//
// A Block says nothing about where its bytes are now; its copies do (offload/tier/block_table.h).
#pragma once

#include <compare>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/bytes.h"

namespace sluice {

// Index of a file opened by a Store.
struct FileId {
  uint32_t value = UINT32_MAX;
  auto operator<=>(const FileId&) const = default;
};

struct BlockId {
  uint32_t value = UINT32_MAX;
  bool valid() const { return value != UINT32_MAX; }
  auto operator<=>(const BlockId&) const = default;
};

// Index of a tier on this machine: memory of one device, or a store. Tier 0 is always host memory.
struct TierId {
  uint16_t value = UINT16_MAX;
  auto operator<=>(const TierId&) const = default;
};
inline constexpr TierId host_tier{0};

enum class BlockKind : uint8_t { weight, expert, table, kv_page, state, activation, optimizer };
std::string_view to_string(BlockKind kind);

// A run of bytes of one file.
struct Extent {
  FileId file;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  bool operator==(const Extent&) const = default;
};

// Direct I/O works in units of this; a Store reads whole units around an extent, so a slot begins with
// up to io_unit - 1 bytes of something else. The rule is the same for buffered reads: where a payload
// lies in its slot depends on the extent alone.
inline constexpr uint64_t io_unit = 4096;
inline uint64_t payload_offset(const Extent& e) { return e.offset % io_unit; }
inline uint64_t slot_bytes(const Extent& e) { return align_up(payload_offset(e) + e.bytes, io_unit); }

struct Block {
  BlockId id;
  BlockKind kind = BlockKind::weight;
  uint64_t bytes = 0;        // payload, the sum of the extents where there are any
  std::vector<Extent> home;  // where a clean copy can be read again; empty for data born in memory

  // Bytes of the slot that holds a copy: each extent read as whole io_units, one behind the other.
  uint64_t slot_size() const;
  // Where extent `i` begins within the slot.
  uint64_t part_offset(size_t i) const;
};

}  // namespace sluice
