// Kernel calls: what a device can be asked to do, as plain data.
//
// A call names memory by address and sizes in elements; matrices are row-major. f32 rows are
// contiguous unless a stride (in elements) is given. A device runs the calls of a queue in order.
//
// Bits: for a given device and ISA, each output row depends only on its own input row, the weights and
// (for attention) its own sequence; never on how many rows, tokens or threads a call has, nor on where
// a row tile begins (DESIGN rule 2). So a product may be cut by rows or by tokens at will.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <variant>

#include "core/dtype.h"

namespace sluice {

// fast: activations quantized to 8 bits where weights are quantized, F16 KV.
// f32: weights dequantized, F32 activations and KV; the reference.
enum class Compute : uint8_t { fast, f32 };

enum class ActFormat : uint8_t {
  f32,
  q8,  // 8-bit values in blocks of 32 with a scale each; the layout is the device's own
  // Of prompts, on devices that multiply them so. Tokens lie in groups of act_group, the last one as large as the
  // others, and are packed in the device's own way: a product of them is not cut by tokens.
  bf16,
  wide8,  // 8-bit values in blocks of 256 with a scale each
};
inline constexpr uint32_t act_group = 64;
inline bool in_groups(ActFormat format) { return format == ActFormat::bf16 || format == ActFormat::wide8; }

enum class KvType : uint8_t { f16, f32 };
inline uint64_t kv_bytes(KvType type) { return type == KvType::f16 ? 2 : 4; }

// out[i] = scale * dequantize(rows[i]), for n_rows rows of `cols` values that lie anywhere.
struct GatherRowsCall {
  const std::byte* const* rows;
  DType dtype;
  uint32_t n_rows, cols;
  float scale;
  float* out;  // n_rows x cols
};

// out (+)= weight * x / sqrt(mean(x^2) + eps), row by row; weight may be null (all ones). out may be x.
// (Zhang & Sennrich 2019, arXiv:1910.07467)
struct RmsNormCall {
  const float* x;
  const float* weight;  // cols
  float eps;
  uint32_t n_rows, cols;
  float* out;
  bool accumulate = false;  // add to out (a residual) instead of replacing it
};

// Activations into the form that a product wants; `out` has n_rows rows of act_row_bytes(format, cols).
// q8: each block of 32, wide8: of 256, is scaled by max|x|/127 and rounded to nearest. bf16: rounded to nearest, ties
// to even. Of those that lie in groups `out` has n_rows rounded up to act_group. Not needed for ActFormat::f32.
struct QuantizeCall {
  const float* x;
  ActFormat format;
  uint32_t n_rows, cols;
  std::byte* out;
};

// out[t][r] (+)= sum_c weights[r][c] * x[t][c] (+ bias[r]) for `rows` rows of a weight tile.
struct MatmulCall {
  const std::byte* weights;  // rows x cols of dtype, any alignment
  DType dtype;
  uint32_t rows, cols;
  const std::byte* x;  // n_tokens rows of act_row_bytes(x_format, cols), as a QuantizeCall made them
  ActFormat x_format;
  uint32_t n_tokens;
  float* out;           // n_tokens x rows, rows apart by out_stride
  uint32_t out_stride;  // >= rows
  const float* bias;    // rows, or null
  bool accumulate;      // add to out (a residual) instead of replacing it
  bool prompt = false;  // part of a prompt: a device may have another kernel for these, whatever n_tokens is
};

// Cosines and sines of one step, shared by all layers: for token t and pair i < n_rot/2, angle =
// positions[t] * freqs[i]; out[t][i] = cos * scale, out[t][n_rot/2 + i] = sin * scale.
// Angles are taken in double.
struct RopeTableCall {
  const int32_t* positions;
  const float* freqs;  // n_rot/2
  uint32_t n_tokens, n_rot;
  float scale;
  float* out;  // n_tokens x n_rot
};

// Rotates, in place, the first n_rot values of each head of x (n_tokens x n_heads x head_dim).
// pairs: (x[2i], x[2i+1]); otherwise halves: (x[i], x[i + n_rot/2]). (Su et al., arXiv:2104.09864)
struct RopeCall {
  float* x;
  const float* table;  // of a RopeTableCall
  uint32_t n_tokens, n_heads, head_dim, n_rot;
  bool pairs;
};

// One sequence's KV pages of one layer. A page holds page_tokens tokens: [kv head][token][head_dim] of
// KvType, keys (rotated) and values in pages of their own. Token `cell` of the sequence lies in page
// cell / page_tokens.
struct KvSpan {
  std::byte* const* k_pages;  // by page index from page `first_page` on
  std::byte* const* v_pages;
  uint32_t first_page;
  uint32_t n_pages;
  uint32_t n_before;  // tokens that the sequence held before this batch
};

// Where a token of the batch goes: the seq-th KvSpan, at index `cell` within that sequence.
struct TokenSlot {
  uint32_t seq;
  uint32_t cell;
  uint64_t ancestors;  // draft trees only, see AttentionCall
};

// Stores k and v (n_tokens x n_kv_heads x head_dim, f32) of each token whose page is in its span;
// tokens of pages outside the span are passed over.
struct KvAppendCall {
  const float* k;
  const float* v;
  const TokenSlot* tokens;
  const KvSpan* spans;
  uint32_t n_tokens, n_kv_heads, head_dim;
  uint32_t page_tokens;
  KvType type;
};

// Attention of n_tokens queries over the pages of their spans, in page order, with online softmax:
// within a page scores, one maximum, one sum; then the running (m, l, O) of the query is rescaled and
// the page added. Thus the result depends on absolute page boundaries alone, and a layer whose pages
// are not all at hand is done by several calls over consecutive spans that carry (m, l, O) in `state`.
// (Milakov & Gimelshein, arXiv:1805.02867; Dao et al., arXiv:2205.14135)
//
// Query t sees cell c of its sequence iff c <= its own cell and, where window > 0, own cell - c <
// window. With tree: it sees cells below n_before, and cell n_before + j iff bit j of its `ancestors`
// is set (the token itself included); windows then count from its own cell all the same.
// Query head h reads kv head h / (n_heads / n_kv_heads). Scores are scale * (q . k), then
// softcap * tanh(score / softcap) where softcap > 0.
struct AttentionCall {
  const float* q;  // n_tokens x n_heads x head_dim, rotated
  const TokenSlot* tokens;
  const KvSpan* spans;
  uint32_t n_tokens, n_heads, n_kv_heads, head_dim;
  uint32_t page_tokens;
  KvType type;
  float scale, softcap;
  uint32_t window;
  bool tree;
  bool start;           // begin: ignore what is in state
  bool finish;          // end: out = O / l
  float* state;         // n_tokens x n_heads x (head_dim + 2): m, l, O; may be null if start and finish
  float* out;           // n_tokens x n_heads x head_dim
  bool prompt = false;  // as in MatmulCall
  // Where the host does not reach the tables, and of calls that are recorded: the most pages of a span that the call
  // has to serve, when replayed too.
  uint32_t most_pages = 0;
};

// out = (O_a + O_b) / (l_a + l_b), each scaled to the larger m: attention over some of a query's pages put together
// with that over the others, which two devices did at once. With the bits of the one where the other saw nothing; a
// query of which neither saw anything gives zeros.
struct MergeStatesCall {
  const float* a;  // n_rows x (head_dim + 2): m, l, O, as in AttentionCall::state
  const float* b;
  uint32_t n_rows, head_dim;  // a row: a head of a token
  float* out;                 // n_rows x head_dim
};

enum class Activation : uint8_t { silu, gelu_tanh };

// out = activation(gate) * up, element by element; out may be gate.
struct GatedActCall {
  const float* gate;
  const float* up;
  Activation activation;
  uint32_t n_rows, cols;
  float* out;
  uint32_t stride = 0;  // from one row to the next, of all three; 0: cols
  uint32_t row_stride() const { return stride != 0 ? stride : cols; }
};

// x = cap * tanh(x / cap), element by element, in place; cap > 0.
struct SoftcapCall {
  float* x;
  uint32_t n_rows, cols;
  float cap;
};

// out[i] = x[index[i]]: rows of a batch that go on alone, or some columns of rows that are apart.
struct CopyRowsCall {
  const float* x;
  const uint32_t* index;
  uint32_t n_rows, cols;
  float* out;
  uint32_t stride = 0;  // from one row to the next, in x and in out; 0: cols
  uint32_t row_stride() const { return stride != 0 ? stride : cols; }
};

// Chooses k of n_experts for each token: softmax of the logits, the k largest (lower index first among
// equals), weights divided by their sum. ids and weights: n_tokens x k, best first.
struct RouteCall {
  const float* logits;  // n_tokens x n_experts
  uint32_t n_tokens, n_experts, k;
  int32_t* ids;
  float* weights;
};

// out[t] (+)= sum over slots s, in order, of weights[t][s] * parts[t * k + s][0..cols).
struct MergeCall {
  const float* const* parts;
  const float* weights;  // n_tokens x k
  uint32_t n_tokens, k, cols;
  bool accumulate;
  float* out;
};

// A token and its logit.
struct TokenLogit {
  float logit;
  int32_t id;
};

// What is asked of one row of logits. Of no more than most_recent tokens no more than the most_best best.
struct BestLogitsRow {
  uint32_t k;         // 0: nothing is asked of this row
  uint32_t n_recent;  // tokens whose logits are penalized first
  float penalty;
};
inline constexpr uint32_t most_best = 256, most_recent = 1024;

// The k best tokens of each row, best first: those of the greatest logits, of equal ones (0 and -0 are) the lower id
// first. Logits of the row's recent tokens count as penalized_logit() has them, in whatever order and however often
// these stand there. Places for which there is no token have the id -1 and the logit -infinity. If a logit of the
// row, penalized or not, is not finite, the first place is the first such token with it, and the others mean nothing.
struct BestLogitsCall {
  const float* logits;        // n_rows x n_vocab
  const BestLogitsRow* rows;  // n_rows; as `recent`, read when the call runs
  const int32_t* recent;      // n_rows x most_recent, of each row the first n_recent; ids from 0 to n_vocab - 1
  uint32_t n_rows, n_vocab;
  TokenLogit* out;  // n_rows x most_best, of each row the first k
};

// A finite logit that is penalized: less for penalties above 1, and never too large for a float.
[[gnu::always_inline]] inline float penalized_logit(float logit, float penalty) {
  constexpr float most = 3e38f;
  const float changed = logit > 0 ? logit / penalty : logit * penalty;
  return changed < -most ? -most : changed > most ? most : changed;
}

using KernelCall = std::variant<GatherRowsCall, RmsNormCall, QuantizeCall, MatmulCall, RopeTableCall, RopeCall,
                                KvAppendCall, AttentionCall, MergeStatesCall, GatedActCall, SoftcapCall, CopyRowsCall,
                                RouteCall, MergeCall, BestLogitsCall>;

// What a call must at least read and write, and the operations it does: each input once, each output
// once. The profiler and the cost model count with these.
struct Cost {
  uint64_t bytes = 0;
  uint64_t flops = 0;
};
Cost cost(const KernelCall& call);
std::string_view name(const KernelCall& call);

}  // namespace sluice
