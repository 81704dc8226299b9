#include "cpu/kernels/declare.h"
#include "cpu/kernels/vector.h"

namespace sluice::cpu::SLUICE_ISA {

void softcap(const SoftcapCall& call, Share share) {
  const Part part = part_of(uint64_t{call.n_rows} * call.cols, share, lanes);
  const float cap = call.cap;
  const auto capped = [cap](const Vec& x) { return cap * tanh(x / cap); };
  uint64_t i = part.begin;
  for (; i + lanes <= part.end; i += lanes) store(call.x + i, capped(load(call.x + i)));
  const auto rest = static_cast<uint32_t>(part.end - i);
  if (rest > 0) store_part(call.x + i, capped(load_part(call.x + i, rest)), rest);
}

}  // namespace sluice::cpu::SLUICE_ISA
