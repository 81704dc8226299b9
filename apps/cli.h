// The command line: what may be given to `sluice`, and what it says about itself.
#pragma once

#include <string>

#include "apps/options.h"

namespace sluice::apps {

struct Parsed {
  Invocation invocation;
  // Where there is nothing to run: text to print, to stdout where exit_code is 0 (help, version), to stderr
  // where it is 2 (usage).
  bool done = false;
  int exit_code = 0;
  std::string text;
};

Parsed parse_command_line(int argc, const char* const* argv);

}  // namespace sluice::apps
