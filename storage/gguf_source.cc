#include "storage/gguf_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "core/error.h"

namespace sluice::storage {
namespace {

std::string errno_text(int code) { return std::generic_category().message(code); }

class FileSource : public ByteSource {
 public:
  FileSource(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  FileSource(const FileSource&) = delete;
  FileSource& operator=(const FileSource&) = delete;
  ~FileSource() override { ::close(fd_); }

  Status examine() {
    struct stat info = {};
    if (::fstat(fd_, &info) != 0) return error(Code::io_error, "{}: stat: {}", path_, errno_text(errno));
    if (S_ISDIR(info.st_mode))
      return error(Code::invalid_argument, "{}: is a directory; name a .gguf file inside it", path_);
    if (!S_ISREG(info.st_mode)) return error(Code::invalid_argument, "{}: is not a regular file", path_);
    size_ = static_cast<uint64_t>(info.st_size);
    return {};
  }

  const std::string& name() const override { return path_; }
  uint64_t size() const override { return size_; }

  Status read(uint64_t offset, std::span<std::byte> out) override {
    for (size_t done = 0; done < out.size();) {
      const ssize_t n = ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return error(Code::io_error, "{}: read at byte {}: {}", path_, offset + done, errno_text(errno));
      if (n == 0)
        return error(Code::io_error, "{}: the file shrank to {} bytes while it was read; it had {}", path_,
                     offset + done, size_);
      done += static_cast<size_t>(n);
    }
    return {};
  }

 private:
  std::string path_;
  int fd_;
  uint64_t size_ = 0;
};

}  // namespace

Result<std::unique_ptr<ByteSource>> open_file_source(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0) {
    const Code code = errno == ENOENT || errno == ENOTDIR ? Code::not_found : Code::io_error;
    return error(code, "{}: open: {}", path, errno_text(errno));
  }
  auto source = std::make_unique<FileSource>(path, fd);
  SLUICE_RETURN_IF_ERROR(source->examine());
  return std::unique_ptr<ByteSource>(std::move(source));
}

Status MemorySource::read(uint64_t offset, std::span<std::byte> out) {
  const auto part = bytes_.subspan(offset, out.size());
  std::copy(part.begin(), part.end(), out.begin());
  return {};
}

Status HeaderBytes::load(ByteSource& source, uint64_t end) {
  if (end <= size_) return {};
  void* grown = std::realloc(data_.get(), end);
  if (grown == nullptr) return error(Code::over_budget, "{}: no memory for a header of {} bytes", source.name(), end);
  data_.release();
  data_.reset(static_cast<std::byte*>(grown));
  SLUICE_RETURN_IF_ERROR(source.read(size_, {data_.get() + size_, end - size_}));
  size_ = end;
  return {};
}

void HeaderBytes::shrink(uint64_t size) {
  if (size >= size_ || size == 0) return;
  if (void* smaller = std::realloc(data_.get(), size)) {
    data_.release();
    data_.reset(static_cast<std::byte*>(smaller));
  }
  size_ = size;
}

}  // namespace sluice::storage
