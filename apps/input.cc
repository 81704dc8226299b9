#include "apps/input.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "apps/values.h"

namespace sluice::apps {
namespace {

constexpr size_t max_line = size_t{1} << 20;

Status system_error(const std::string& what) {
  const Code code = errno == ENOENT ? Code::not_found : Code::io_error;
  return Status(code, what + ": " + std::strerror(errno));
}

// read(2) that is not disturbed by signals.
ssize_t read_some(int fd, void* to, size_t size) {
  ssize_t n = 0;
  do {
    n = ::read(fd, to, size);
  } while (n < 0 && errno == EINTR);
  return n;
}

Result<std::string> read_all(int fd, const std::string& name, uint64_t limit) {
  std::string text;
  std::array<char, 65536> chunk;
  for (;;) {
    const ssize_t n = read_some(fd, chunk.data(), chunk.size());
    if (n < 0) return system_error(name);
    if (n == 0) return text;
    text.append(chunk.data(), static_cast<size_t>(n));
    if (text.size() > limit)
      return Status(Code::unsupported, name + ": a text of more than " + std::to_string(limit >> 20) +
                                           " MiB; split it into smaller files");
  }
}

}  // namespace

Result<std::string> read_file(const std::string& path, uint64_t limit) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return system_error(path);
  auto text = read_all(fd, path, limit);
  ::close(fd);
  return text;
}

Result<std::string> read_text(const TextSource& source, uint64_t limit) {
  if (source.has_prompt) return source.escapes ? process_escapes(source.prompt) : source.prompt;
  if (source.has_file) return read_file(source.file, limit);
  return read_all(STDIN_FILENO, "standard input", limit);
}

std::string without_last_newline(std::string text) {
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

bool LineReader::take_line(std::string& line) {
  const size_t end = buffer_.find('\n', scanned_);
  if (end == std::string::npos) {
    scanned_ = buffer_.size();
    return false;
  }
  line = buffer_.substr(0, end);
  buffer_.erase(0, end + 1);
  scanned_ = 0;
  return true;
}

Result<LineReader::Got> LineReader::next(std::string& line) {
  std::array<char, 4096> chunk;
  for (;;) {
    if (take_line(line)) return Got::line;
    if (buffer_.size() > max_line) return Status(Code::unsupported, "standard input: a line of more than 1 MiB");
    if (ended_) {
      line.swap(buffer_);
      buffer_.clear();
      scanned_ = 0;
      return line.empty() ? Got::end : Got::line;
    }
    std::array<pollfd, 2> waits{{{fd_, POLLIN, 0}, {wake_fd_, POLLIN, 0}}};
    if (::poll(waits.data(), waits.size(), -1) < 0) {
      if (errno == EINTR) continue;
      return system_error("standard input");
    }
    if (waits[1].revents != 0) return Got::woken;
    const ssize_t n = read_some(fd_, chunk.data(), chunk.size());
    if (n < 0) return system_error("standard input");
    if (n == 0) ended_ = true;
    buffer_.append(chunk.data(), static_cast<size_t>(n > 0 ? n : 0));
  }
}

}  // namespace sluice::apps
