#include "cpu/kernels/declare.h"
#include "cpu/kernels/vector.h"

namespace sluice::cpu::SLUICE_ISA {
namespace {

[[gnu::always_inline]] inline Vec silu(const Vec& x) { return x / (1.0f + exp(-x)); }

// 0.5 x (1 + tanh(u)) = x / (1 + e^(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3): the same function without
// the cancellation at large negative x. (Hendrycks & Gimpel 2016, arXiv:1606.08415)
[[gnu::always_inline]] inline Vec gelu_tanh(const Vec& x) {
  const Vec twice_u = 1.5957691216057308f * (x + 0.044715f * (x * x * x));
  return x / (1.0f + exp(-twice_u));
}

template <Activation activation>
[[gnu::always_inline]] inline Vec apply(const Vec& x) {
  if constexpr (activation == Activation::silu) return silu(x);
  else return gelu_tanh(x);
}

// The elements [i, end), which lie behind one another.
template <Activation activation>
void gate(const GatedActCall& call, uint64_t i, uint64_t end) {
  for (; i + lanes <= end; i += lanes) store(call.out + i, apply<activation>(load(call.gate + i)) * load(call.up + i));
  const auto rest = static_cast<uint32_t>(end - i);
  if (rest == 0) return;
  const Vec v = apply<activation>(load_part(call.gate + i, rest)) * load_part(call.up + i, rest);
  store_part(call.out + i, v, rest);
}

}  // namespace

void gated_act(const GatedActCall& call, Share share) {
  const uint64_t n = uint64_t{call.n_rows} * call.cols, stride = call.row_stride();
  const uint64_t cols = stride == call.cols ? n : call.cols;  // that lie behind one another
  const Part part = part_of(n, share, lanes);
  for (uint64_t i = part.begin; i < part.end;) {
    const uint64_t first = i / cols * stride + i % cols;
    const uint64_t rest = part.end - i, in_row = cols - i % cols;
    const uint64_t count = rest < in_row ? rest : in_row;
    if (call.activation == Activation::silu) gate<Activation::silu>(call, first, first + count);
    else gate<Activation::gelu_tanh>(call, first, first + count);
    i += count;
  }
}

}  // namespace sluice::cpu::SLUICE_ISA
