#include "storage/uring_ring.h"

#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "core/bytes.h"
#include "core/error.h"

namespace sluice::storage {
namespace {

struct Choice {
  unsigned flags;
  const char* name;
};
constexpr unsigned common_flags = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE;
constexpr Choice choices[] = {
    {common_flags | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
     "single issuer, deferred"},
    {common_flags | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN, "cooperative"},
    {common_flags, "plain"},
};

Status refused(int code) {
  const char* remedy = "";
  if (code == ENOSYS) remedy = "; it needs Linux 5.6 or newer, built with CONFIG_IO_URING";
  else if (code == EPERM || code == EACCES)
    remedy =
        "; allow it with `sysctl kernel.io_uring_disabled=0`, or in a container with a seccomp profile that "
        "permits io_uring_setup, io_uring_enter and io_uring_register";
  else if (code == ENOMEM) remedy = "; raise the limit of locked memory (ulimit -l)";
  return error(Code::unavailable, "io_uring is not available ({}){}", strerror(code), remedy);
}

// Whether the memory of this process is counted against RLIMIT_MEMLOCK.
bool memlock_counts() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (syscall(SYS_capget, &header, data) != 0) return true;
  return (data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK)) == 0;
}

}  // namespace

void Ring::close() {
  if (!opened_) return;
  unregister_region();  // the exit alone would give the pages back some time later
  io_uring_queue_exit(&ring_);
  opened_ = false;
}

void Ring::unregister_region() {
  if (!region_.empty()) io_uring_unregister_buffers(&ring_);
  region_ = {};
}

Status Ring::open(uint32_t entries, uint32_t first_choice) {
  int failed = EINVAL;
  for (size_t i = first_choice; i < std::size(choices) && failed == EINVAL; ++i) {
    io_uring_params params{};
    params.flags = choices[i].flags;
    params.cq_entries = 2 * entries;
    failed = -io_uring_queue_init_params(entries, &ring_, &params);
    if (failed != 0) continue;
    opened_ = true;
    flags_ = choices[i].name;
    if ((params.features & IORING_FEAT_RW_CUR_POS) == 0 || (params.features & IORING_FEAT_NODROP) == 0)
      return refused(ENOSYS);  // before 5.6: without IORING_OP_READ
    return {};
  }
  return refused(failed);
}

const char* Ring::register_region(std::span<std::byte> region) {
  rlimit limit{};
  // Tried first it would make the region resident, and then fail.
  if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur < region.size() && memlock_counts())
    return "RLIMIT_MEMLOCK is smaller";
  std::vector<iovec> parts;
  for (uint64_t at = 0; at < region.size(); at += GiB)
    parts.push_back({region.data() + at, std::min<uint64_t>(GiB, region.size() - at)});
  const int failed = -io_uring_register_buffers(&ring_, parts.data(), static_cast<unsigned>(parts.size()));
  if (failed != 0) return failed == ENOMEM ? "no memory may be locked" : "the kernel refused";
  region_ = region;
  return nullptr;
}

int Ring::registered_index(const std::byte* at, uint64_t bytes) const {
  const uint64_t offset = reinterpret_cast<uintptr_t>(at) - reinterpret_cast<uintptr_t>(region_.data());
  if (offset >= region_.size() || bytes > region_.size() - offset) return -1;
  const uint64_t first = offset / GiB, last = (offset + bytes - 1) / GiB;
  return first == last ? static_cast<int>(first) : -1;
}

}  // namespace sluice::storage
