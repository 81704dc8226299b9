// What the products of few tokens share: a warp makes R rows for up to N tokens, each lane a part of every
// sum, and the lanes are added at the end in a fixed order. Rows and tokens beyond the call's are computed
// as copies of its last ones and not stored, so that no lane leaves early.
#pragma once

#include "gpu/kernels/product.h"

namespace sluice::gpu {

constexpr uint32_t matvec_warps = 4;  // of a block

template <uint32_t N, uint32_t R>
SLUICE_DEVICE void add_lanes_and_store(const MatmulCall& call, uint32_t first_token, uint32_t first_row,
                                       const float (&acc)[R][N]) {
  SLUICE_UNROLL
  for (uint32_t r = 0; r < R; ++r) {
    SLUICE_UNROLL
    for (uint32_t t = 0; t < N; ++t) {
      const float sum = warp_sum(acc[r][t]);
      const uint32_t token = first_token + t, row = first_row + r;
      if (lane() == (r * N + t) % 32 && token < call.n_tokens && row < call.rows) store_product(call, token, row, sum);
    }
  }
}

}  // namespace sluice::gpu
