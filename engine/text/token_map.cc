#include "engine/text/token_map.h"

#include <cstring>

namespace sluice::engine {
namespace {

// The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
uint64_t mix(uint64_t x) {
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

}  // namespace

uint64_t hash_bytes(std::string_view bytes) {
  uint64_t hash = mix(bytes.size() + 0x9E3779B97F4A7C15u);
  for (size_t at = 0; at < bytes.size(); at += 8) {
    uint64_t word = 0;
    const size_t n = bytes.size() - at < 8 ? bytes.size() - at : 8;
    std::memcpy(&word, bytes.data() + at, n);
    hash = mix(hash ^ word);
  }
  return hash;
}

uint64_t hash_pair(uint32_t a, uint32_t b) { return mix((static_cast<uint64_t>(a) << 32 | b) + 0x9E3779B97F4A7C15u); }

}  // namespace sluice::engine
