// Strings from pieces.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

namespace sluice::apps {

std::string join(std::initializer_list<std::string_view> pieces);

// printf into a string.
[[gnu::format(printf, 1, 2)]] std::string format(const char* pattern, ...);

}  // namespace sluice::apps
