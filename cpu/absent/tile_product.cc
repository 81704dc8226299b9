// Builds without oneDNN.
#include "cpu/tile_product.h"

namespace sluice::cpu {

TileMaker bf16_tiles() {
  return [](uint32_t, std::byte*, uint64_t) -> Result<std::unique_ptr<TileProduct>> {
    return Status(Code::unavailable, "this build has no oneDNN: install libdnnl-dev and configure again");
  };
}

}  // namespace sluice::cpu
