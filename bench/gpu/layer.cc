// A layer of an 8B model with one token: its calls one by one, and together as a queue runs them.
#include <span>
#include <vector>

#include "bench/gpu/sequence.h"

namespace sluice::bench {
namespace {

// What a layer of an 8B model does for one token, Q4_K_M with a down projection in Q6_K, as an executor launches it.
std::vector<KernelCall> layer_calls(Rig& rig, const Sequence& sequence, uint32_t i) {
  constexpr uint32_t hidden = 4096, kv = 1024, ffn = 14336, heads = Sequence::n_heads, dim = Sequence::head_dim;
  const uint64_t at = i % 6 * (uint64_t{300} << 20), mib = 1 << 20;  // three layers do not fit the L2
  std::byte* const q8 = rig.x();
  auto* const table = reinterpret_cast<const float*>(rig.x() + Rig::act_bytes / 2);
  float *const h = rig.out(), *const x = h + hidden, *const q = x + hidden, *const k = q + hidden, *const v = k + kv;
  float *const gate = v + kv, *const up = gate + ffn, *const attended = up + ffn;
  const auto product = [&](uint64_t from, DType type, uint32_t rows, uint32_t cols, float* out) {
    return MatmulCall{
        rig.weights() + at + from * mib, type, rows, cols, q8, ActFormat::q8, 1, out, rows, nullptr, out == h};
  };
  KvAppendCall append = sequence.recorded(sequence.append());
  append.k = k;
  append.v = v;
  AttentionCall attention = sequence.recorded(sequence.call());
  attention.q = q;
  attention.out = attended;
  return {
      RmsNormCall{h, table, 1e-5f, 1, hidden, x},
      QuantizeCall{x, ActFormat::q8, 1, hidden, q8},
      product(0, DType::q4_k, hidden, hidden, q),
      product(10, DType::q4_k, kv, hidden, k),
      product(15, DType::q4_k, kv, hidden, v),
      RopeCall{q, table, 1, heads, dim, dim, false},
      RopeCall{k, table, 1, Sequence::n_kv_heads, dim, dim, false},
      append,
      attention,
      QuantizeCall{attended, ActFormat::q8, 1, hidden, q8},
      product(20, DType::q4_k, hidden, hidden, h),
      RmsNormCall{h, table, 1e-5f, 1, hidden, x},
      QuantizeCall{x, ActFormat::q8, 1, hidden, q8},
      product(30, DType::q4_k, ffn, hidden, gate),
      product(70, DType::q4_k, ffn, hidden, up),
      GatedActCall{gate, up, Activation::silu, 1, ffn, gate},
      QuantizeCall{gate, ActFormat::q8, 1, ffn, q8},
      product(110, DType::q6_k, hidden, ffn, h),
  };
}

// How many calls from the first on a queue runs together.
size_t n_joined(std::span<const KernelCall> calls) {
  size_t n = 1;
  while (n < calls.size() && gpu::joins(calls.first(n), calls[n])) ++n;
  return n;
}

Status run(Rig& rig, std::span<const KernelCall> calls, bool together) {
  while (!calls.empty()) {
    const size_t n = together ? n_joined(calls) : 1;
    SLUICE_RETURN_IF_ERROR(gpu::run(rig.timer().stream(), calls.first(n), rig.context()));
    calls = calls.subspan(n);
  }
  return {};
}

// Calls first..first + n - 1 of layers whose weights are elsewhere in turn.
Status time_calls(Rig& rig, const Sequence& sequence, const std::string& kernel, const std::string& what, size_t first,
                  size_t n, bool together) {
  uint64_t bytes = 0;
  const std::vector<KernelCall> calls = layer_calls(rig, sequence, 0);
  for (const KernelCall& call : std::span(calls).subspan(first, n)) bytes += cost(call).bytes;
  SLUICE_ASSIGN_OR_RETURN(const double us, rig.timer().us(12, rig.repeats, [&](uint32_t i) {
    const std::vector<KernelCall> calls_of_one = layer_calls(rig, sequence, i);
    return run(rig, std::span(calls_of_one).subspan(first, n), together);
  }));
  rig.report(kernel, what, us, bytes, 0);
  return {};
}

}  // namespace

Status bench_layer(Rig& rig) {
  Sequence sequence(rig, 256, 1);
  SLUICE_RETURN_IF_ERROR(sequence.place());
  const std::vector<KernelCall> calls = layer_calls(rig, sequence, 0);
  SLUICE_RETURN_IF_ERROR(time_calls(rig, sequence, "layer", "8B, n=1, depth=256, one by one", 0, calls.size(), false));
  SLUICE_RETURN_IF_ERROR(time_calls(rig, sequence, "layer", "8B, n=1, depth=256, together", 0, calls.size(), true));
  for (size_t first = 0, n = 0; first < calls.size(); first += n) {
    n = n_joined(std::span(calls).subspan(first));
    std::string names;
    for (const KernelCall& call : std::span(calls).subspan(first, n))
      names.append(names.empty() ? "" : "+").append(name(call));
    SLUICE_RETURN_IF_ERROR(time_calls(rig, sequence, "of it", names, first, n, true));
  }
  return {};
}

}  // namespace sluice::bench
