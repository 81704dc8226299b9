#include "core/block.h"

namespace sluice {

std::string_view to_string(BlockKind kind) {
  switch (kind) {
    case BlockKind::weight: return "weight";
    case BlockKind::expert: return "expert";
    case BlockKind::table: return "table";
    case BlockKind::kv_page: return "kv_page";
    case BlockKind::state: return "state";
    case BlockKind::activation: return "activation";
    case BlockKind::optimizer: return "optimizer";
  }
  return "unknown";
}

uint64_t Block::slot_size() const {
  if (home.empty()) return align_up(bytes, io_unit);
  uint64_t total = 0;
  for (const Extent& e : home) total += slot_bytes(e);
  return total;
}

uint64_t Block::part_offset(size_t i) const {
  if (home.empty()) return 0;
  uint64_t at = 0;
  for (size_t k = 0; k < i; ++k) at += slot_bytes(home[k]);
  return at + payload_offset(home[i]);
}

}  // namespace sluice
