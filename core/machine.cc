#include "core/machine.h"

namespace sluice {
namespace {

template <class T>
const T* find(const std::vector<T>& items, std::string_view id) {
  for (const T& item : items)
    if (item.id == id) return &item;
  return nullptr;
}

}  // namespace

const DeviceRates* Machine::device(std::string_view id) const { return find(devices, id); }
const TierRates* Machine::tier(std::string_view id) const { return find(tiers, id); }

}  // namespace sluice
