#include "cpu/isa.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/error.h"

namespace sluice::cpu {

namespace scalar {
const KernelTable& table();
}
namespace avx2 {
const KernelTable& table();
}
namespace avx512 {
const KernelTable& table();
}

namespace {

// Not every compiler's __builtin_cpu_supports knows F16C; the registers it needs are those of AVX.
bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
         has_f16c();
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

bool has_amx_int8() {
  constexpr unsigned amx_tile = 1u << 24, amx_int8 = 1u << 25;
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & amx_tile) != 0 && (d & amx_int8) != 0;
}

// For all threads of the process (Linux, Documentation/arch/x86/xstate.rst).
bool ask_for_tiles() {
  constexpr long arch_req_xcomp_perm = 0x1023, xfeature_xtiledata = 18;
  return syscall(SYS_arch_prctl, arch_req_xcomp_perm, xfeature_xtiledata) == 0;
}

}  // namespace

bool supported(Isa isa) {
  switch (isa) {
    case Isa::scalar: return true;
    case Isa::avx2: return has_avx2();
    case Isa::avx512: return has_avx512();
  }
  return false;
}

const KernelTable& kernels(Isa isa) {
  SLUICE_CHECK(supported(isa));
  switch (isa) {
    case Isa::scalar: break;
    case Isa::avx2: return avx2::table();
    case Isa::avx512: return avx512::table();
  }
  return scalar::table();
}

bool may_use_amx_int8() {
  static const bool may = supported(Isa::avx512) && has_amx_int8() && ask_for_tiles();
  return may;
}

Isa best_isa() {
  for (const Isa isa : {Isa::avx512, Isa::avx2})
    if (supported(isa)) return isa;
  return Isa::scalar;
}

}  // namespace sluice::cpu
