// Memory: the bytes of one memory tier, taken from the system once and handed out by our allocators.
//
// Contract: base() is aligned to 2 MiB where the tier is host memory and to 4096 elsewhere; the range
// does not move or change while the object lives; host_accessible() says whether the CPU may read and
// write through it. Immutable after construction, so any thread may call it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice {

class Memory {
 public:
  virtual ~Memory() = default;
  virtual std::byte* base() const = 0;
  virtual uint64_t capacity() const = 0;
  virtual bool host_accessible() const = 0;
};

// A part of another Memory, which must outlive it.
class MemorySlice : public Memory {
 public:
  MemorySlice(Memory& whole, uint64_t offset, uint64_t bytes) : whole_(whole), offset_(offset), bytes_(bytes) {}
  std::byte* base() const override { return whole_.base() + offset_; }
  uint64_t capacity() const override { return bytes_; }
  bool host_accessible() const override { return whole_.host_accessible(); }

 private:
  Memory& whole_;
  const uint64_t offset_, bytes_;
};

}  // namespace sluice
