// Runs a function in a thread to which the kernel denies a system call, as containers do.
#pragma once

#include <doctest/doctest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <thread>

namespace sluice::testing {

// Every call of `number` gives `code`, in that thread and those it starts; with `bits`, only calls in
// which all those bits are set in argument `argument`.
struct Denial {
  uint32_t number;
  uint32_t code;
  uint32_t argument = 0, bits = 0;
};

inline bool deny(const Denial& d) {
  const uint32_t low_half = static_cast<uint32_t>(offsetof(seccomp_data, args) + 8 * d.argument);
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, d.number, 0, 4),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, low_half),
      BPF_STMT(BPF_ALU | BPF_AND | BPF_K, d.bits),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, d.bits, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | d.code),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{sizeof program / sizeof program[0], program};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

template <class Function>
void run_denied(const Denial& denial, Function function) {
  std::thread([&] {
    if (deny(denial)) function();
    else MESSAGE("seccomp is not available here: not tested");
  }).join();
}

}  // namespace sluice::testing
