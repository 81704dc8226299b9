// Synthetic model files: real shapes and types, random weights.
//
// Weights have a mean near zero and a deviation of 1/sqrt(cols), so that activations stay of order one
// through any number of layers. Quantized tensors repeat a few MiB of random blocks, begun elsewhere in
// each tensor; every byte is written, so the file has no holes. The tokenizer is a byte-level BPE that
// knows all bytes and as many short lower-case words as the vocabulary has room for.
#pragma once

#include <cstdint>
#include <string>

#include "bench/model_shape.h"
#include "sluice/status.h"

namespace sluice::bench {

struct Written {
  uint64_t bytes = 0;
  double seconds = 0;  // until the disk has them
};

// Writes `path` (through "<path>.part", so that a file of that name is always whole), aligned to 32 bytes
// as real files are. The same shape and seed give the same bytes. invalid_argument for a shape that no
// file can have: sizes that are not whole blocks, a vocabulary without room for bytes and two special
// tokens.
Result<Written> write_synthetic(const ModelShape& shape, const std::string& path, uint64_t seed);

}  // namespace sluice::bench
