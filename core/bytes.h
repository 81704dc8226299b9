// Sizes: checked arithmetic on numbers that come from files, rounding, and sizes as people write them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "sluice/status.h"

namespace sluice {

inline constexpr uint64_t KiB = 1024;
inline constexpr uint64_t MiB = 1024 * KiB;
inline constexpr uint64_t GiB = 1024 * MiB;

// Both return false, and leave `out` alone, where the result would wrap.
inline bool checked_add(uint64_t a, uint64_t b, uint64_t& out) { return !__builtin_add_overflow(a, b, &out); }
inline bool checked_mul(uint64_t a, uint64_t b, uint64_t& out) { return !__builtin_mul_overflow(a, b, &out); }

constexpr bool is_power_of_two(uint64_t x) { return x != 0 && (x & (x - 1)) == 0; }

// `alignment` is a power of two; align_up of values within `alignment` of 2^64 wraps.
constexpr uint64_t align_down(uint64_t x, uint64_t alignment) { return x & ~(alignment - 1); }
constexpr uint64_t align_up(uint64_t x, uint64_t alignment) { return align_down(x + alignment - 1, alignment); }
constexpr uint64_t div_up(uint64_t x, uint64_t d) { return (x + d - 1) / d; }

// "64M", "1.5GiB", "2g", "4096": binary units, an optional B or iB, no sign. Anything else, and what
// does not fit 63 bits, is invalid_argument.
Result<uint64_t> parse_size(std::string_view text);

// "98.4 MB" is never printed: sizes are binary and say so, "93.8 MiB".
std::string format_size(uint64_t bytes);

}  // namespace sluice
