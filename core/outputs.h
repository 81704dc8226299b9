// Where products write, for those who run some of them together.
#pragma once

#include "core/kernel.h"

namespace sluice {

// Whether no element belongs to the outputs of both: they are different columns of the same rows, or lie apart.
inline bool outputs_apart(const MatmulCall& a, const MatmulCall& b) {
  const MatmulCall &left = a.out < b.out ? a : b, &right = a.out < b.out ? b : a;
  const auto distance = static_cast<uint64_t>(right.out - left.out);
  // With several tokens the stretches in between count too.
  if (distance >= uint64_t{left.n_tokens - 1} * left.out_stride + left.rows) return true;
  return left.out_stride == right.out_stride && distance >= left.rows && distance + right.rows <= left.out_stride;
}

}  // namespace sluice
