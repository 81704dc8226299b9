#include "cpu/kernels/declare.h"

#define SLUICE_STRING_INNER(x) #x
#define SLUICE_STRING(x) SLUICE_STRING_INNER(x)

namespace sluice::cpu::SLUICE_ISA {

const KernelTable& table() {
  static constexpr KernelTable kernels = {
      .isa = SLUICE_STRING(SLUICE_ISA),
      .gather_rows = gather_rows,
      .rms_norm = rms_norm,
      .quantize = quantize,
      .matmul = matmul,
      .rope_table = rope_table,
      .rope = rope,
      .kv_append = kv_append,
      .attention = attention,
      .merge_states = merge_states,
      .gated_act = gated_act,
      .softcap = softcap,
      .copy_rows = copy_rows,
      .route = route,
      .merge = merge,
      .best_logits = best_logits,
      .pack_panel = pack_panel,
      .multiply_wide8 = multiply_wide8,
      .store_tile = store_tile,
  };
  return kernels;
}

}  // namespace sluice::cpu::SLUICE_ISA
