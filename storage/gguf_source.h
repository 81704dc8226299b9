// Where the GGUF reader takes its bytes from: a file, or memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>

#include "sluice/status.h"

namespace sluice::storage {

// Bytes that can be read at any offset. Threads: one at a time.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual const std::string& name() const = 0;  // for messages: a path
  virtual uint64_t size() const = 0;
  // Fills `out` with the bytes from `offset` on; the range lies within size().
  virtual Status read(uint64_t offset, std::span<std::byte> out) = 0;
};

// A regular file, read with pread. Errors name the path: not_found, invalid_argument (a directory, a
// device), io_error.
Result<std::unique_ptr<ByteSource>> open_file_source(const std::string& path);

// Bytes that outlive the source.
class MemorySource : public ByteSource {
 public:
  MemorySource(std::string name, std::span<const std::byte> bytes) : name_(std::move(name)), bytes_(bytes) {}
  const std::string& name() const override { return name_; }
  uint64_t size() const override { return bytes_.size(); }
  Status read(uint64_t offset, std::span<std::byte> out) override;

 private:
  std::string name_;
  std::span<const std::byte> bytes_;
};

// The first bytes of a source. Grows with realloc, which moves pages instead of copying them where the
// block is large, so that reading a header needs its size once and not twice.
class HeaderBytes {
 public:
  const std::byte* data() const { return data_.get(); }
  uint64_t size() const { return size_; }
  // Appends the source's bytes up to `end`, which lies within it; over_budget when memory is refused.
  Status load(ByteSource& source, uint64_t end);
  void shrink(uint64_t size);

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> data_;
  uint64_t size_ = 0;
};

}  // namespace sluice::storage
