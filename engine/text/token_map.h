// TokenMap: a flat hash table from keys that live elsewhere to small numbers.
//
// It stores only the numbers; who uses it compares keys. Probing is linear and bounded: keys that were
// made to collide are refused instead of taking quadratic time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace sluice::engine {

using TokenId = int32_t;

uint64_t hash_bytes(std::string_view bytes);
uint64_t hash_pair(uint32_t a, uint32_t b);

class TokenMap {
 public:
  enum class Added { yes, duplicate, too_many_collisions };

  // Room for `keys` keys; what was in the table is gone.
  void reset(size_t keys) {
    size_t slots = 16;
    while (slots < 2 * keys) slots *= 2;
    slots_.assign(slots, empty);
  }

  // `same(v)`: is the key of value v the one being added?
  template <class Same>
  Added add(uint64_t hash, uint32_t value, Same same) {
    for (size_t i = 0; i < max_probes && i < slots_.size(); ++i) {
      uint32_t& slot = slots_[(hash + i) & (slots_.size() - 1)];
      if (slot == empty) {
        slot = value;
        return Added::yes;
      }
      if (same(slot)) return Added::duplicate;
    }
    return Added::too_many_collisions;
  }

  // The value whose key is `same`, or `none`.
  static constexpr uint32_t none = UINT32_MAX;
  template <class Same>
  uint32_t find(uint64_t hash, Same same) const {
    for (size_t i = 0; i < max_probes && i < slots_.size(); ++i) {
      const uint32_t slot = slots_[(hash + i) & (slots_.size() - 1)];
      if (slot == empty) return none;
      if (same(slot)) return slot;
    }
    return none;
  }

  uint64_t memory_bytes() const { return slots_.capacity() * sizeof(uint32_t); }

 private:
  static constexpr uint32_t empty = UINT32_MAX;
  static constexpr size_t max_probes = 512;  // random keys need about 40 at the load of one half
  std::vector<uint32_t> slots_;
};

}  // namespace sluice::engine
