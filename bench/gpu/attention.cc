// Attention of 32 heads of 128 over 8 kv heads in f16 pages of 64 tokens: one token at many depths, prompts, and the
// append.
#include <cuda_runtime.h>

#include <algorithm>
#include <vector>

#include "bench/gpu/rig.h"
#include "core/error.h"
#include "gpu/cuda_error.h"

namespace sluice::bench {
namespace {

constexpr uint32_t n_heads = 32, n_kv_heads = 8, head_dim = 128, page_tokens = 64;
constexpr uint64_t page_bytes = uint64_t{page_tokens} * n_kv_heads * head_dim * 2;

// A sequence of `depth` tokens of which the last `n` are new. Page tables lie in the GPU's memory, behind x.
class Sequence {
 public:
  Sequence(Rig& rig, uint32_t depth, uint32_t n) : rig_(rig), depth_(depth), n_(n) {}

  Status place() {
    const uint32_t pages = (depth_ + page_tokens - 1) / page_tokens;
    std::vector<std::byte*> table;
    for (uint32_t i = 0; i < 2 * pages; ++i) table.push_back(rig_.weights() + i * page_bytes);
    std::byte* const at = rig_.x() + Rig::act_bytes - (1 << 20);
    SLUICE_RETURN_IF_ERROR(gpu::to_status(cudaMemcpyAsync(at, table.data(), table.size() * sizeof(std::byte*),
                                                          cudaMemcpyHostToDevice, rig_.timer().stream()),
                                          "sending page tables"));
    SLUICE_RETURN_IF_ERROR(gpu::to_status(cudaStreamSynchronize(rig_.timer().stream()), "sending page tables"));
    auto* pointers = reinterpret_cast<std::byte**>(at);
    span_ = reinterpret_cast<KvSpan*>(rig_.host());
    slots_ = reinterpret_cast<TokenSlot*>(rig_.host() + 4096);
    *span_ = {pointers, pointers + pages, 0, pages, depth_ - n_};
    for (uint32_t t = 0; t < n_; ++t) slots_[t] = {0, depth_ - n_ + t, 0};
    return {};
  }
  AttentionCall call() const {
    return {reinterpret_cast<const float*>(rig_.x()),
            slots_,
            span_,
            n_,
            n_heads,
            n_kv_heads,
            head_dim,
            page_tokens,
            KvType::f16,
            0.088f,
            0,
            0,
            false,
            true,
            true,
            nullptr,
            rig_.out()};
  }
  KvAppendCall append() const {
    const auto* x = reinterpret_cast<const float*>(rig_.x());
    return {x, x, slots_, span_, n_, n_kv_heads, head_dim, page_tokens, KvType::f16};
  }
  uint64_t kv_bytes() const { return uint64_t{depth_} * n_kv_heads * head_dim * 4; }
  // Each new token sees those before it and itself.
  uint64_t flops() const { return 4ull * n_heads * head_dim * n_ * (depth_ - n_ + (n_ + 1) / 2); }

 private:
  Rig& rig_;
  const uint32_t depth_, n_;
  KvSpan* span_ = nullptr;
  TokenSlot* slots_ = nullptr;
};

Status attend(Rig& rig, uint32_t depth, uint32_t n) {
  Sequence sequence(rig, depth, n);
  SLUICE_RETURN_IF_ERROR(sequence.place());
  const uint32_t calls = n > 64 ? 2 : 16;
  const auto make = [&](uint32_t) { return sequence.call(); };
  const std::string what = fmt::format("depth={} n={}", depth, n);
  SLUICE_RETURN_IF_ERROR(rig.time_launched("attention", what, calls, sequence.kv_bytes(), sequence.flops(), make));
  if (n > 16) return {};
  return rig.time("attention", what + " in a graph", calls, sequence.kv_bytes(), sequence.flops(), make);
}

}  // namespace

Status bench_attention(Rig& rig) {
  for (const uint32_t depth : {256u, 1024u, 4096u, 16384u, 65536u, 131072u})
    for (const uint32_t n : {1u, 8u}) SLUICE_RETURN_IF_ERROR(attend(rig, depth, n));
  for (const uint32_t n : {512u, 2048u}) SLUICE_RETURN_IF_ERROR(attend(rig, n, n));
  SLUICE_RETURN_IF_ERROR(attend(rig, 16384, 512));
  for (const uint32_t n : {1u, 512u}) {
    Sequence sequence(rig, 4096, n);
    SLUICE_RETURN_IF_ERROR(sequence.place());
    SLUICE_RETURN_IF_ERROR(rig.time("kv_append", fmt::format("n={}", n), 32, cost(KernelCall(sequence.append())).bytes,
                                    0, [&](uint32_t) { return sequence.append(); }));
  }
  return {};
}

}  // namespace sluice::bench
