#include "offload/plan/plan.h"

#include <fmt/format.h>

namespace sluice::plan {

std::string Numerics::hash() const {
  std::string text =
      fmt::format("compute={} kv={} page={}", static_cast<int>(compute), static_cast<int>(kv_type), page_tokens);
  for (const std::string& device : op_device) text += " " + device;
  uint64_t h = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : text) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return fmt::format("{:016x}", h);
}

}  // namespace sluice::plan
