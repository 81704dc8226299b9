// Workspace and StepTables: the activations of one step at one site, and what the host writes for all sites to
// read, carved once from memory.
//
// Sizes are in the comments: N tokens at most in a step, R rows of logits, B of them of which the best tokens are
// wanted, S sequences, L layers.
#pragma once

#include <algorithm>

#include "core/graph.h"
#include "core/kernel.h"
#include "core/memory.h"

namespace sluice::plan {

struct WorkspaceShape {
  uint32_t tokens = 1;      // N
  uint32_t logit_rows = 1;  // R
  uint32_t sequences = 1;   // S
  uint32_t taps = 0;        // hidden states kept for this many layers
  bool far_pages = false;   // the host has a part in accelerators' attention (Numerics::near_pages)
  bool operator==(const WorkspaceShape&) const = default;
};

// Tokens, at most, of steps whose tables accelerators get copies of.
inline constexpr uint32_t few_tokens = 16;

// B: one of each sequence, as far as few tokens go.
inline uint32_t best_rows(const WorkspaceShape& shape) {
  return std::min({shape.logit_rows, shape.sequences, few_tokens});
}

// What attention carries of a token: m, l and O of each head.
inline uint32_t state_values(const Graph& graph) { return graph.n_heads * (graph.head_dim + 2); }

// In the memory of one site. The values of attention and those of FFNs and experts lie over one another: ops follow one
// another, and none reads what the other kind has left.
struct Workspace {
  // Activations, f32
  float* h = nullptr;  // N x hidden: the residual stream
  float* x = nullptr;  // N x hidden: normed
  // Of attention
  float* q = nullptr;  // N x n_heads x head_dim
  float* k = nullptr;  // N x n_kv_heads x head_dim
  float* v = nullptr;
  float* attended = nullptr;   // N x n_heads x head_dim
  float* state = nullptr;      // N x state_values(): attention carried between calls
  float* far_state = nullptr;  // likewise, of the host's part in an accelerator's attention
  // Of FFNs
  float* gate = nullptr;  // N x ffn
  float* up = nullptr;    // N x ffn
  // Of all
  float* logits = nullptr;       // R x n_vocab
  std::byte* acts = nullptr;     // N rows of activations in the form that a product wants
  float* rope_tables = nullptr;  // per rope N x n_rot
  std::byte* mirror = nullptr;   // of StepTables::mirrored; none for the host

  // Routed layers: E experts, K used
  float* router = nullptr;          // N x E
  int32_t* expert_ids = nullptr;    // N x K
  float* expert_weights = nullptr;  // N x K
  float* expert_x = nullptr;        // N*K x hidden: rows of x, grouped by expert
  float* expert_out = nullptr;      // N*K x hidden, grouped by expert
  const float** parts = nullptr;    // N x K: where each token's parts are
  uint32_t* expert_rows = nullptr;  // N*K: token of each grouped row
};

// What kernels read of a step.
struct TokenTables {
  int32_t* positions = nullptr;            // N
  TokenSlot* slots = nullptr;              // N
  KvSpan* spans = nullptr;                 // L x S x 2, used in turn by the page groups of a layer; then those of the
                                           // host's part in accelerators' attention
  uint32_t* logit_index = nullptr;         // R: rows of h
  uint32_t* counting = nullptr;            // max(N, R): 0, 1, 2, …
  float* freqs = nullptr;                  // of each rope, one behind the other
  const std::byte** embed_rows = nullptr;  // N
  BestLogitsRow* best = nullptr;           // B, as `recent` the same for all tokens as for few
  int32_t* recent = nullptr;               // B x most_recent
};

// Pages of a layer and kind that pass from the host through an accelerator's memory at once, in prompts.
inline constexpr uint32_t staged_pages = 16;

// In host memory that all sites reach.
struct StepTables {
  TokenTables all;
  // Those that accelerators read in steps of at most few_tokens, if all is known before: the step begins with copying
  // `mirrored` to their own memory, where kernels find them, and the pointer tables of pages, sooner than here.
  TokenTables few;
  std::byte* mirrored = nullptr;
  uint64_t mirrored_bytes = 0;  // a multiple of 64
  std::byte** pages = nullptr;  // S x L x 2 x pages_per_sequence, 2 x 2 x staged_pages: the KV store's pointer tables
  std::byte* embed_slots = nullptr;  // N x embed_slot: gathered rows, as read
  uint64_t embed_slot = 0;
  // Results
  float* logits = nullptr;     // R x n_vocab
  TokenLogit* best = nullptr;  // B x most_best
  float* taps = nullptr;       // taps x R x hidden
};

// The same tables `by` bytes away.
TokenTables moved(TokenTables tables, ptrdiff_t by);

// Lays a Workspace out from `base` (null only measures) and returns the bytes it takes. An accelerator also has
// logits, which the host's computes straight into the StepTables, and the mirror.
uint64_t lay_out(const Graph& graph, const WorkspaceShape& shape, bool accelerator, uint32_t pages_per_sequence,
                 std::byte* base, Workspace& out);

// `embed_gather`: rows of the embedding table are read from disk, or are copied for a site that does not hold it.
uint64_t lay_out(const Graph& graph, const WorkspaceShape& shape, uint32_t pages_per_sequence, bool embed_gather,
                 std::byte* base, StepTables& out);

}  // namespace sluice::plan
