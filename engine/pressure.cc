#include "engine/pressure.h"

#include <algorithm>
#include <utility>

#include "core/bytes.h"
#include "engine/system.h"

namespace sluice::engine {

uint64_t affordable_ram(uint64_t free) { return free / 10 * 8; }

// The budget left a fourth of itself free.
uint64_t low_mark(uint64_t most) { return std::clamp(most / 16, std::min(256 * MiB, most / 8), 2 * GiB); }

std::optional<uint64_t> wanted_budget(const MemoryState& m, uint64_t low) {
  const uint64_t left_free = 2 * low, plenty = 4 * low;
  if (m.free < low) {
    const uint64_t missing = left_free - m.free;
    return m.used > missing ? m.used - missing : 0;
  }
  if (m.budget >= m.most || m.free < plenty) return std::nullopt;
  const uint64_t larger = std::min(m.most, m.used + (m.free - left_free));
  if (larger == m.most || larger >= m.budget + low) return larger;
  return std::nullopt;
}

uint64_t Pressure::free_memory() const { return options_.free_memory ? options_.free_memory() : available_memory(); }

bool Pressure::due(uint64_t now_ns) {
  if (most_ == 0 || now_ns < next_look_ns_) return false;
  next_look_ns_ = now_ns + options_.interval_ns;
  return true;
}

std::optional<uint64_t> Pressure::decide(MemoryState state, uint64_t now_ns) {
  state.most = most_;
  const auto wanted = wanted_budget(state, options_.low != 0 ? options_.low : low_mark(most_));
  const bool grows = wanted && *wanted > state.budget;
  if (!grows) {
    calm_since_ns_.reset();
    return wanted;
  }
  if (!calm_since_ns_) calm_since_ns_ = now_ns;
  return now_ns - *calm_since_ns_ >= options_.calm_ns ? wanted : std::nullopt;
}

bool Pressure::refused(uint64_t now_ns) {
  next_look_ns_ = now_ns + std::max(options_.interval_ns, options_.after_refusal_ns);
  return !std::exchange(told_, true);
}

void Pressure::begin(uint64_t most) {
  most_ = most;
  calm_since_ns_.reset();
  told_ = false;
}

}  // namespace sluice::engine
