// A sequence in f16 pages of 64 tokens, 32 heads of 128 over 8 kv heads, and the calls that read and write it.
#pragma once

#include <cuda_runtime.h>

#include <vector>

#include "bench/gpu/rig.h"
#include "core/error.h"
#include "gpu/cuda_error.h"

namespace sluice::bench {

// `depth` tokens of which the last `n` are new. All tables lie in the GPU's memory, behind x, where recordings have
// theirs; spans and slots lie in pinned host memory too, where other calls find them.
class Sequence {
 public:
  static constexpr uint32_t n_heads = 32, n_kv_heads = 8, head_dim = 128, page_tokens = 64;
  static constexpr uint64_t page_bytes = uint64_t{page_tokens} * n_kv_heads * head_dim * 2;

  Sequence(Rig& rig, uint32_t depth, uint32_t n)
      : rig_(rig), depth_(depth), n_(n), n_pages_((depth + page_tokens - 1) / page_tokens) {}

  Status place() {
    std::vector<std::byte*> table;
    for (uint32_t i = 0; i < 2 * n_pages_; ++i) table.push_back(rig_.weights() + i * page_bytes);
    std::byte* const at = rig_.x() + Rig::act_bytes - (1 << 20);
    auto* pointers = reinterpret_cast<std::byte**>(at);
    span_ = reinterpret_cast<KvSpan*>(rig_.host());
    slots_ = reinterpret_cast<TokenSlot*>(rig_.host() + 4096);
    *span_ = {pointers, pointers + n_pages_, 0, n_pages_, depth_ - n_};
    for (uint32_t t = 0; t < n_; ++t) slots_[t] = {0, depth_ - n_ + t, 0};
    SLUICE_RETURN_IF_ERROR(send(at, table.data(), table.size() * sizeof(std::byte*)));
    device_tables_ = at - (1 << 20);
    return send(device_tables_, rig_.host(), 4096 + n_ * sizeof(TokenSlot));
  }

  AttentionCall call() const {
    return {q(),    slots_, span_, n_,    n_heads, n_kv_heads, head_dim, page_tokens, KvType::f16,
            0.088f, 0,      0,     false, true,    true,       nullptr,  rig_.out()};
  }
  KvAppendCall append() const { return {q(), q(), slots_, span_, n_, n_kv_heads, head_dim, page_tokens, KvType::f16}; }
  // As in a recording: with tables in the GPU's memory.
  template <class Call>
  Call recorded(Call c) const {
    c.spans = reinterpret_cast<const KvSpan*>(device_tables_);
    c.tokens = reinterpret_cast<const TokenSlot*>(device_tables_ + 4096);
    if constexpr (requires { c.most_pages; }) c.most_pages = n_pages_;
    return c;
  }
  uint64_t kv_bytes() const { return uint64_t{depth_} * n_kv_heads * head_dim * 4; }
  // Each new token sees those before it and itself.
  uint64_t flops() const { return 4ull * n_heads * head_dim * n_ * (depth_ - n_ + (n_ + 1) / 2); }

 private:
  const float* q() const { return reinterpret_cast<const float*>(rig_.x()); }
  Status send(std::byte* to, const void* from, uint64_t bytes) {
    SLUICE_RETURN_IF_ERROR(gpu::to_status(
        cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, rig_.timer().stream()), "sending tables"));
    return gpu::to_status(cudaStreamSynchronize(rig_.timer().stream()), "sending tables");
  }

  Rig& rig_;
  const uint32_t depth_, n_, n_pages_;
  KvSpan* span_ = nullptr;
  TokenSlot* slots_ = nullptr;
  std::byte* device_tables_ = nullptr;
};

}  // namespace sluice::bench
