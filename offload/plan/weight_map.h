// WeightMap: how the tensors of a Graph are cut into blocks.
//
// - A matrix is cut by rows into tiles of at most max_tile_bytes, a multiple of 16 rows each, as equal as
//   they come; a tile is a block. Where a tile begins never changes a result.
// - Small matrices that lie behind one another in the file share a block and are read together.
// - Vectors (norms, biases) are blocks of their own, always resident.
// - An expert is one block of three parts: its slices of gate, up and down.
// - The embedding table is cut like a matrix, but only kept or left as a whole; from what is not in
//   memory single rows are gathered. Where the head is tied to it, the head's tiles are the table's.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "core/graph.h"

namespace sluice::plan {

// Rows [begin, end) of a matrix; none where they are equal.
struct Rows {
  uint32_t begin = 0, end = 0;
};

struct Tile {
  TensorId tensor;
  uint32_t row_begin = 0, row_end = 0;
  uint32_t block = 0;   // index into WeightMap::blocks
  uint64_t offset = 0;  // of its first row within the block's payload
  // Those of `rows` that are its own.
  Rows within(Rows rows) const {
    const uint32_t begin = std::max(row_begin, rows.begin);
    return {begin, std::max(begin, std::min(row_end, rows.end))};
  }
};

enum class BlockRole : uint8_t { vector, matrix, expert, table };

struct WeightBlock {
  BlockRole role = BlockRole::matrix;
  std::vector<Extent> extents;
  uint64_t bytes = 0;       // payload
  uint64_t slot_bytes = 0;  // with what direct I/O reads around it
  uint32_t first_op = 0;    // the op that reads it first; the order of `blocks` follows it
  uint32_t uses = 0;        // tiles read from it in one pass over the graph
};

struct WeightMap {
  uint64_t max_tile_bytes = 0;
  std::vector<WeightBlock> blocks;
  std::vector<std::vector<Tile>> tiles;           // by TensorId; empty for experts
  std::vector<std::vector<uint32_t>> op_experts;  // by op: the block of each expert, for ExpertsOps

  std::span<const Tile> of(TensorId id) const { return tiles[id.value]; }
  uint64_t largest_slot(BlockRole role) const;
};

WeightMap cut(const Graph& graph, uint64_t max_tile_bytes);

}  // namespace sluice::plan
