// The kernels of the ISA that the including source is compiled for; cpu/kernels/kernels.h says how they
// are called, core/kernel.h what they compute. Each is defined in the source of its name.
#pragma once

#include "cpu/kernels/kernels.h"

namespace sluice::cpu::SLUICE_ISA {

void gather_rows(const GatherRowsCall& call, Share share);
void rms_norm(const RmsNormCall& call, Share share);
void quantize(const QuantizeCall& call, Share share);
void matmul(const MatmulCall& call, Share share);
void rope_table(const RopeTableCall& call, Share share);
void rope(const RopeCall& call, Share share);
void kv_append(const KvAppendCall& call, Share share);
void attention(const AttentionCall& call, Share share);
void merge_states(const MergeStatesCall& call, Share share);
void gated_act(const GatedActCall& call, Share share);
void softcap(const SoftcapCall& call, Share share);
void copy_rows(const CopyRowsCall& call, Share share);
void route(const RouteCall& call, Share share);
void merge(const MergeCall& call, Share share);
void best_logits(const BestLogitsCall& call, Share share);
void pack_panel(const WeightPanel& panel);
void multiply_wide8(const TileCall& call);
void store_tile(const MatmulCall& call, const OutputTile& tile);

}  // namespace sluice::cpu::SLUICE_ISA
