#include "cpu/host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

#include "core/bytes.h"
#include "core/error.h"

namespace sluice::cpu {
namespace {

constexpr uint64_t page = 4096;

Status mapping_error(uint64_t bytes, const char* what) {
  return error(Code::over_budget, "cannot {} {} of host memory: {}; ask for less (--ram) or raise ulimit -v", what,
               format_size(bytes), std::strerror(errno));
}

// Maps `bytes` at a multiple of HostMemory::alignment by mapping more and cutting both ends off.
Result<std::byte*> map_aligned(uint64_t bytes) {
  uint64_t all = 0;
  if (!checked_add(bytes, HostMemory::alignment, all)) {
    errno = ENOMEM;
    return mapping_error(bytes, "map");
  }
  void* p = ::mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return mapping_error(bytes, "map");
  auto* start = static_cast<std::byte*>(p);
  const uint64_t address = reinterpret_cast<uintptr_t>(p);
  const uint64_t head = align_up(address, HostMemory::alignment) - address;
  if (head > 0) ::munmap(start, head);
  if (const uint64_t tail = all - head - bytes; tail > 0) ::munmap(start + head + bytes, tail);
  return start + head;
}

// MADV_POPULATE_WRITE came with Linux 5.14; before it, one write to each page does the same.
Status populate_part(std::byte* base, uint64_t bytes) {
  if (::madvise(base, bytes, MADV_POPULATE_WRITE) == 0) return {};
  if (errno != EINVAL) return mapping_error(bytes, "commit");
  for (uint64_t i = 0; i < bytes; i += page) const_cast<volatile std::byte*>(base)[i] = std::byte{0};
  return {};
}

// The kernel clears pages at some GB/s on each core: several do it together.
Status populate(std::byte* base, uint64_t bytes) {
  constexpr uint64_t worth_a_thread = uint64_t{256} << 20;
  const uint64_t n = std::clamp<uint64_t>(bytes / worth_a_thread, 1, std::thread::hardware_concurrency());
  const uint64_t part = align_up(div_up(bytes, n), HostMemory::alignment);
  std::vector<Status> ends(n);
  std::vector<std::thread> threads;
  for (uint64_t i = 1; i < n && i * part < bytes; ++i)
    threads.emplace_back([&, i] { ends[i] = populate_part(base + i * part, std::min(part, bytes - i * part)); });
  ends[0] = populate_part(base, std::min(part, bytes));
  for (std::thread& thread : threads) thread.join();
  for (const Status& end : ends) SLUICE_RETURN_IF_ERROR(end);
  return {};
}

}  // namespace

Result<std::unique_ptr<HostMemory>> HostMemory::create(uint64_t bytes, bool prefault) {
  if (bytes == 0) return error(Code::invalid_argument, "host memory of 0 bytes was asked for");
  if (bytes > UINT64_MAX - page) bytes = UINT64_MAX - page;
  const uint64_t capacity = align_up(bytes, page);
  SLUICE_ASSIGN_OR_RETURN(std::byte * base, map_aligned(capacity));
  std::unique_ptr<HostMemory> memory(new HostMemory(base, capacity));
  // A kernel without transparent huge pages refuses; the memory works all the same.
  (void)::madvise(base, capacity, MADV_HUGEPAGE);
  if (prefault) SLUICE_RETURN_IF_ERROR(populate(base, capacity));
  return memory;
}

HostMemory::~HostMemory() { ::munmap(base_, capacity_); }

}  // namespace sluice::cpu
