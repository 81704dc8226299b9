// Standard output and standard error.
//
// Output goes through write(2) so that a closed pipe and a full disk are seen where they happen. SIGPIPE
// must be ignored. One thread uses an Output; the functions for stderr may be called from any.
#pragma once

#include <string>
#include <string_view>

#include "sluice/status.h"

namespace sluice::apps {

class Output {
 public:
  // False from the first write that failed on; the rest is dropped.
  bool write(std::string_view text);

  // Ends the last line if it has not ended.
  bool end_line();

  // `code` if all was written or the reader went away (which is its right), else the error.
  Result<int> finish(int code = 0) const;

  // True when a terminal shows it.
  static bool is_terminal();

 private:
  int error_ = 0;
  char last_ = '\n';
};

// One line on stderr each, written at once; control characters of the text are made visible.
void print_error(std::string_view text);    // sluice: text
void print_warning(std::string_view text);  // sluice: warning: text
void print_note(std::string_view text);     // text

// Several lines on stderr, as they are.
void print_block(std::string_view lines);

// "\x1b[31m" and other control characters of `text` as visible escapes, so that what a file says can be
// shown on a terminal. Newlines too.
std::string printable(std::string_view text);

}  // namespace sluice::apps
