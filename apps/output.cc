#include "apps/output.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace sluice::apps {
namespace {

// 0, or the errno of what stopped it.
int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n >= 0) {
      text.remove_prefix(static_cast<size_t>(n));
    } else if (errno == EAGAIN) {
      pollfd wait{fd, POLLOUT, 0};
      (void)::poll(&wait, 1, -1);
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

void print_line(std::string_view start, std::string_view text) {
  (void)write_all(STDERR_FILENO, std::string(start) + printable(text) + "\n");
}

}  // namespace

bool Output::write(std::string_view text) {
  if (error_ != 0 || text.empty()) return error_ == 0;
  last_ = text.back();
  error_ = write_all(STDOUT_FILENO, text);
  return error_ == 0;
}

bool Output::end_line() { return last_ == '\n' ? error_ == 0 : write("\n"); }

Result<int> Output::finish(int code) const {
  if (error_ == 0 || error_ == EPIPE) return code;
  return Status(Code::io_error, std::string("standard output: ") + std::strerror(error_));
}

bool Output::is_terminal() { return ::isatty(STDOUT_FILENO) == 1; }

void print_error(std::string_view text) { print_line("sluice: ", text); }
void print_warning(std::string_view text) { print_line("sluice: warning: ", text); }
void print_note(std::string_view text) { print_line("", text); }
void print_block(std::string_view lines) { (void)write_all(STDERR_FILENO, lines); }

std::string printable(std::string_view text) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F are control characters too: C2 80 to C2 9F.
    const bool c1 = c == 0xc2 && i + 1 < text.size() && (text[i + 1] & 0xe0) == 0x80;
    if (c >= 0x20 && c != 0x7f && !c1) {
      out += text[i];
    } else if (c == '\n' || c == '\t') {
      out += c == '\n' ? "\\n" : "\\t";
    } else {
      out += {'\\', 'x', digits[c >> 4], digits[c & 15]};
    }
  }
  return out;
}

}  // namespace sluice::apps
