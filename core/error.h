// Building a Status with a formatted message: error(Code::corrupt, "{}: bad magic at {}", path, offset).
#pragma once

#include <fmt/format.h>

#include "sluice/status.h"

namespace sluice {

template <class... Args>
Status error(Code code, fmt::format_string<Args...> format, Args&&... args) {
  return Status(code, fmt::format(format, std::forward<Args>(args)...));
}

// Ends the process on a programmer's error: a broken invariant, never bad input.
[[noreturn]] void fatal(const char* file, int line, const char* what);

}  // namespace sluice

#define SLUICE_CHECK(condition) ((condition) ? void(0) : ::sluice::fatal(__FILE__, __LINE__, #condition))
