// Builds without oneDNN.
#include "cpu/tile_product.h"

namespace sluice::cpu {

Result<std::unique_ptr<TileProduct>> make_tile_product(uint32_t, std::byte*, uint64_t) {
  return Status(Code::unavailable, "this build has no oneDNN: install libdnnl-dev and configure again");
}

}  // namespace sluice::cpu
