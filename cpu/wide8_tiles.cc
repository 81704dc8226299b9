// TileProduct of 8-bit integers: AMX where there is, and else the kernels of an instruction set.
#include "core/error.h"
#include "cpu/isa.h"
#include "cpu/tile_product.h"

namespace sluice::cpu {
namespace {

class Wide8Tiles final : public TileProduct {
 public:
  using Kernel = void (*)(const TileCall&);
  Wide8Tiles(Kernel kernel, std::string name) : kernel_(kernel), name_(std::move(name)) {}

  ActFormat format() const override { return ActFormat::wide8; }
  Status prepare(uint32_t) override { return {}; }
  bool multiply(const TileCall& call, uint32_t) override {
    kernel_(call);
    return true;
  }
  const std::string& name() const override { return name_; }

 private:
  const Kernel kernel_;
  const std::string name_;
};

}  // namespace

TileMaker wide8_tiles(const KernelTable& kernels) {
  return [&kernels](uint32_t, std::byte*, uint64_t) -> Result<std::unique_ptr<TileProduct>> {
    const auto made = [](Wide8Tiles::Kernel kernel, const char* isa) {
      return std::unique_ptr<TileProduct>(new Wide8Tiles(kernel, fmt::format("wide8 {}", isa)));
    };
    if (may_use_amx_int8()) return made(amx::multiply_wide8, "amx");
    return made(kernels.multiply_wide8, kernels.isa);
  };
}

}  // namespace sluice::cpu
