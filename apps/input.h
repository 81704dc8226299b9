// Texts from files and standard input, bounded.
#pragma once

#include <cstdint>
#include <string>

#include "apps/options.h"
#include "sluice/status.h"

namespace sluice::apps {

// What a command that loads a model accepts as a text; it comes on top of the model's budget.
inline constexpr uint64_t max_text = uint64_t{16} << 20;
// What `tokenize` accepts.
inline constexpr uint64_t max_tokenized_text = uint64_t{256} << 20;

// The whole of a file; io_error or not_found where it cannot be read, unsupported where it has more than
// `limit` bytes.
Result<std::string> read_file(const std::string& path, uint64_t limit);

// The text a command works on; from -p with its escapes processed, from files and stdin as it is.
Result<std::string> read_text(const TextSource& source, uint64_t limit);

// Without the newline that editors and echo put at the end of a text.
std::string without_last_newline(std::string text);

// Lines of a descriptor, as they come; waiting ends when `wake_fd` becomes readable.
class LineReader {
 public:
  enum class Got { line, end, woken };

  LineReader(int fd, int wake_fd) : fd_(fd), wake_fd_(wake_fd) {}

  // `line` is without its newline. A last line without one counts. io_error where reading fails,
  // unsupported where a line is longer than 1 MiB.
  Result<Got> next(std::string& line);

 private:
  bool take_line(std::string& line);

  int fd_, wake_fd_;
  bool ended_ = false;
  std::string buffer_;
  size_t scanned_ = 0;  // of buffer_, without a newline
};

}  // namespace sluice::apps
