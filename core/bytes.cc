#include "core/bytes.h"

#include <charconv>
#include <cmath>

#include "core/error.h"

namespace sluice {

Result<uint64_t> parse_size(std::string_view text) {
  const Status bad = error(Code::invalid_argument, "'{}' is not a size (examples: 64M, 1.5G, 4096)", text);
  double number = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (ec != std::errc() || !(number >= 0) || text.front() == '-') return bad;
  std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));

  double scale = 1;
  if (!unit.empty()) {
    switch (unit.front() | 0x20) {
      case 'k': scale = static_cast<double>(KiB); break;
      case 'm': scale = static_cast<double>(MiB); break;
      case 'g': scale = static_cast<double>(GiB); break;
      case 't': scale = static_cast<double>(1024 * GiB); break;
      case 'b': break;
      default: return bad;
    }
    if ((unit.front() | 0x20) != 'b') unit.remove_prefix(1);
    if (!unit.empty() && unit != "B" && unit != "b" && unit != "iB" && unit != "ib") return bad;
  }
  const double bytes = std::floor(number * scale);
  if (bytes >= 9223372036854775808.0) return bad;
  return static_cast<uint64_t>(bytes);
}

std::string format_size(uint64_t bytes) {
  if (bytes < KiB) return fmt::format("{} B", bytes);
  if (bytes < MiB) return fmt::format("{:.1f} KiB", static_cast<double>(bytes) / static_cast<double>(KiB));
  if (bytes < GiB) return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / static_cast<double>(MiB));
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / static_cast<double>(GiB));
}

}  // namespace sluice
