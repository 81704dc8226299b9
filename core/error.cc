#include "core/error.h"

namespace sluice {

std::string_view to_string(Code code) {
  switch (code) {
    case Code::ok: return "ok";
    case Code::invalid_argument: return "invalid_argument";
    case Code::not_found: return "not_found";
    case Code::corrupt: return "corrupt";
    case Code::unsupported: return "unsupported";
    case Code::over_budget: return "over_budget";
    case Code::io_error: return "io_error";
    case Code::cancelled: return "cancelled";
    case Code::unavailable: return "unavailable";
    case Code::internal: return "internal";
  }
  return "unknown";
}

void fatal(const char* file, int line, const char* what) {
  std::fprintf(stderr, "sluice: %s:%d: broken invariant: %s\n", file, line, what);
  std::abort();
}

}  // namespace sluice
