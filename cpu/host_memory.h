// HostMemory: the memory tier of the host, one anonymous mapping on huge pages where the kernel has them.
//
// Pages are committed when first touched, unless prefault is asked for. The mapping is private and is
// given back by the destructor. Threads: as Memory.
#pragma once

#include <memory>

#include "core/memory.h"
#include "sluice/status.h"

namespace sluice::cpu {

class HostMemory : public Memory {
 public:
  static constexpr uint64_t alignment = uint64_t{2} << 20;

  // `bytes` are rounded up to 4096; 0 is invalid_argument. over_budget where the system has not that
  // much address space or, with prefault, memory.
  static Result<std::unique_ptr<HostMemory>> create(uint64_t bytes, bool prefault = false);
  ~HostMemory() override;
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;

  std::byte* base() const override { return base_; }
  uint64_t capacity() const override { return capacity_; }
  bool host_accessible() const override { return true; }

 private:
  HostMemory(std::byte* base, uint64_t capacity) : base_(base), capacity_(capacity) {}

  std::byte* base_;
  uint64_t capacity_;
};

}  // namespace sluice::cpu
