// Batch: the tokens of one step. One sequence, many users, a prompt's chunk and a draft tree are all
// Batches.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sluice {

struct SequenceId {
  uint32_t value = UINT32_MAX;
  auto operator<=>(const SequenceId&) const = default;
};

// What a row of logits may be asked for instead of all of it: its best tokens, as BestLogitsCall in core/kernel.h has
// them. The device that made the logits then chooses, and no more than these leave it.
struct BestTokens {
  uint32_t k = 0;                   // 1 to most_best; 0: the logits are wanted
  float penalty = 1;                // of recent tokens, above 0
  std::span<const int32_t> recent;  // at most most_recent, all of the vocabulary; read before the step returns
};

struct BatchToken {
  int32_t token = 0;
  int32_t position = 0;  // of the rotary embedding
  SequenceId sequence;
  uint64_t ancestors = 0;  // trees: bit j = the j-th token of this sequence in this batch is seen
  bool wants_logits = false;
  BestTokens best = {};  // of the logits, if wanted
};

// Tokens of one sequence stand together and are appended to it in their order. In a tree each token sees
// what its sequence held before and the tokens of its `ancestors` (its own bit included); a sequence
// then brings at most 64 tokens.
struct Batch {
  std::vector<BatchToken> tokens;
  bool tree = false;
  // Part of a prompt rather than tokens decoded or verified, of which a sequence brings at most 16: a plan may
  // compute the two in different places and ways. All parts of one prompt say so, the last short one too.
  bool prompt = false;
  std::vector<uint32_t> tap_layers;  // hidden states after these layers, for the rows that want logits
};

}  // namespace sluice
