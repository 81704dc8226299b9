#include "offload/plan/weight_map.h"

#include <algorithm>

namespace sluice::plan {
namespace {

constexpr uint32_t row_unit = 16;
constexpr uint64_t group_bytes = MiB;        // small neighbours are gathered up to this
constexpr uint64_t small_bytes = 256 * KiB;  // what counts as small

class Cutter {
 public:
  Cutter(const Graph& graph, uint64_t max_tile_bytes) : g_(graph) {
    map_.max_tile_bytes = max_tile_bytes;
    map_.tiles.resize(graph.tensors.size());
    map_.op_experts.resize(graph.ops.size());
  }

  WeightMap run() {
    for (op_ = 0; op_ < g_.ops.size(); ++op_) {
      const Op& op = g_.ops[op_];
      for (TensorId id : vectors(op)) cut_vector(id);
      if (const auto* experts = std::get_if<ExpertsOp>(&op)) cut_experts(*experts);
      cut_matrices(matrices(op));
    }
    for (const Op& op : g_.ops)
      if (const auto* embed = std::get_if<EmbedOp>(&op)) cut_table(embed->table);
    return std::move(map_);
  }

 private:
  uint32_t add_block(BlockRole role, std::vector<Extent> extents, uint32_t uses) {
    WeightBlock b{role, std::move(extents), 0, 0, static_cast<uint32_t>(op_), uses};
    for (const Extent& e : b.extents) {
      b.bytes += e.bytes;
      b.slot_bytes += slot_bytes(e);
    }
    map_.blocks.push_back(std::move(b));
    return static_cast<uint32_t>(map_.blocks.size() - 1);
  }

  bool seen(TensorId id) const { return !map_.tiles[id.value].empty(); }

  void cut_vector(TensorId id) {
    if (seen(id)) return;
    const uint32_t block = add_block(BlockRole::vector, {g_.tensor(id).extent}, 0);
    map_.tiles[id.value].push_back({id, 0, 1, block, 0});
  }

  void cut_experts(const ExpertsOp& op) {
    const TensorSpec* parts[] = {&g_.tensor(op.gate), &g_.tensor(op.up), &g_.tensor(op.down)};
    for (uint32_t e = 0; e < parts[0]->experts; ++e) {
      std::vector<Extent> extents;
      for (const TensorSpec* t : parts) {
        const uint64_t bytes = t->extent.bytes / t->experts;
        extents.push_back({t->extent.file, t->extent.offset + e * bytes, bytes});
      }
      map_.op_experts[op_].push_back(add_block(BlockRole::expert, std::move(extents), 0));
    }
  }

  // The matrices of one op in the order of reading: small ones that are neighbours in the file share a
  // block, whatever their order there.
  void cut_matrices(const std::vector<TensorId>& ids) {
    for (TensorId id : ids) {
      if (seen(id)) {
        for (const Tile& tile : map_.tiles[id.value]) ++map_.blocks[tile.block].uses;
        continue;
      }
      std::vector<TensorId> group = neighbours(id, ids);
      if (group.size() > 1) add_group(group);
      else cut_rows(id, BlockRole::matrix, 1);
    }
  }

  bool small(TensorId id) const { return !seen(id) && g_.tensor(id).extent.bytes <= small_bytes; }

  // The small, not yet cut matrices of the op that lie next to `first` in the file, sorted by place.
  std::vector<TensorId> neighbours(TensorId first, const std::vector<TensorId>& ids) const {
    if (!small(first)) return {first};
    std::vector<TensorId> sorted;
    std::copy_if(ids.begin(), ids.end(), std::back_inserter(sorted), [this](TensorId id) { return small(id); });
    std::sort(sorted.begin(), sorted.end(), [this](TensorId a, TensorId b) { return start(a) < start(b); });
    sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
    auto at = std::find(sorted.begin(), sorted.end(), first);
    auto begin = at, end = at + 1;
    while (begin != sorted.begin() && adjacent(*(begin - 1), *begin) && spans(*(begin - 1), *(end - 1))) --begin;
    while (end != sorted.end() && adjacent(*(end - 1), *end) && spans(*begin, *end)) ++end;
    return {begin, end};
  }
  uint64_t start(TensorId id) const { return g_.tensor(id).extent.offset; }
  uint64_t stop(TensorId id) const { return start(id) + g_.tensor(id).extent.bytes; }
  bool adjacent(TensorId a, TensorId b) const {
    return g_.tensor(a).extent.file == g_.tensor(b).extent.file && start(b) - stop(a) < io_unit;
  }
  bool spans(TensorId a, TensorId b) const { return stop(b) - start(a) <= std::min(group_bytes, map_.max_tile_bytes); }

  void add_group(const std::vector<TensorId>& group) {
    const Extent whole{g_.tensor(group.front()).extent.file, start(group.front()),
                       stop(group.back()) - start(group.front())};
    const uint32_t block = add_block(BlockRole::matrix, {whole}, 1);  // the others are counted when their turn comes
    for (TensorId id : group)
      map_.tiles[id.value].push_back({id, 0, g_.tensor(id).rows, block, start(id) - whole.offset});
  }

  void cut_rows(TensorId id, BlockRole role, uint32_t uses) {
    const TensorSpec& t = g_.tensor(id);
    const uint64_t most = std::max<uint64_t>(row_unit, map_.max_tile_bytes / t.row_size() / row_unit * row_unit);
    const uint64_t n_tiles = div_up(t.rows, most);
    const auto step = static_cast<uint32_t>(align_up(div_up(t.rows, n_tiles), row_unit));
    for (uint32_t row = 0; row < t.rows; row += step) {
      const uint32_t end = std::min(t.rows, row + step);
      const Extent part{t.extent.file, t.extent.offset + row * t.row_size(), (end - row) * t.row_size()};
      map_.tiles[id.value].push_back({id, row, end, add_block(role, {part}, uses), 0});
    }
  }

  void cut_table(TensorId id) {
    op_ = 0;
    if (!seen(id)) cut_rows(id, BlockRole::table, 0);
  }

  const Graph& g_;
  WeightMap map_;
  size_t op_ = 0;
};

}  // namespace

uint64_t WeightMap::largest_slot(BlockRole role) const {
  uint64_t most = 0;
  for (const WeightBlock& b : blocks)
    if (b.role == role) most = std::max(most, b.slot_bytes);
  return most;
}

WeightMap cut(const Graph& graph, uint64_t max_tile_bytes) { return Cutter(graph, max_tile_bytes).run(); }

}  // namespace sluice::plan
