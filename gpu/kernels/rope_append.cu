// The rotation of queries and of keys and the append of these keys and their values, in one: what rope.cu and
// kv_append.cu do one behind the other.
//
// Bytes: 8 a value of the queries, 10 of the keys, 6 of the values (f16). Bound by the launch and the look-up of a page
// for few tokens, by memory for many.
//
// A token has some blocks, of which those with keys or values look its pages up once each; a thread has a pair, or a
// value that is only stored. Prompts are left to the kernels apart: their tables lie in host memory, where look-ups
// count.
#include "gpu/kernels/dispatch.h"
#include "gpu/kernels/joint.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/kv_place.h"
#include "gpu/kernels/rope.h"

namespace sluice::gpu {
namespace {

constexpr uint32_t threads = 256;

// What a token takes: pairs of queries, pairs of keys, keys that are not rotated, values.
struct Items {
  uint32_t queries, pairs, keys, values;
};

SLUICE_DEVICE void rotate_query(const RopeCall& call, uint32_t token, uint32_t i) {
  const uint32_t half = call.n_rot / 2;
  float* head = call.x + (uint64_t{token} * call.n_heads + i / half) * call.head_dim;
  const RotatedPair pair = rotated_pair(call, head, call.table + uint64_t{token} * call.n_rot, i % half);
  head[pair.first] = pair.a;
  head[pair.second] = pair.b;
}

template <class T>
SLUICE_DEVICE void rotate_key(const RopeCall& call, const KvAppendCall& append, const KvPlace& place, uint32_t token,
                              uint32_t i) {
  const uint32_t half = call.n_rot / 2, of_token = i / half * call.head_dim;
  float* head = call.x + uint64_t{token} * call.n_heads * call.head_dim + of_token;
  const RotatedPair pair = rotated_pair(call, head, call.table + uint64_t{token} * call.n_rot, i % half);
  head[pair.first] = pair.a;
  head[pair.second] = pair.b;
  if (place.k == nullptr) return;
  T* to = reinterpret_cast<T*>(place.k) + place_in_page(append, place.cell, of_token);
  store_value(to + pair.first, pair.a);
  store_value(to + pair.second, pair.b);
}

template <class T>
SLUICE_KERNEL void rope_append_kernel(RopeCall q, RopeCall k, KvAppendCall append, Items n) {
  let_next_begin();
  SLUICE_SHARED(KvPlace, place, [1]);
  const uint32_t token = block_y();
  const bool only_queries = (block_x() + 1) * threads <= n.queries;
  if (thread_x() == 0 && !only_queries)
    place[0] = place_of(append, token);  // by tables, which no kernel just before writes
  wait_for_previous();
  block_barrier();
  uint32_t i = block_x() * threads + thread_x();
  if (i < n.queries) return rotate_query(q, token, i);
  i -= n.queries;
  if (i < n.pairs) return rotate_key<T>(k, append, place[0], token, i);
  i -= n.pairs;
  if (place[0].k == nullptr) return;
  const uint64_t from = uint64_t{token} * append.n_kv_heads * append.head_dim;
  if (i < n.keys) {
    const uint32_t rest = append.head_dim - k.n_rot, at = i / rest * append.head_dim + k.n_rot + i % rest;
    return store_value(reinterpret_cast<T*>(place[0].k) + place_in_page(append, place[0].cell, at),
                       append.k[from + at]);
  }
  i -= n.keys;
  if (i < n.values)
    store_value(reinterpret_cast<T*>(place[0].v) + place_in_page(append, place[0].cell, i), append.v[from + i]);
}

}  // namespace

bool joins(const RopeCall& q, const RopeCall& k) {
  return k.table == q.table && k.n_tokens == q.n_tokens && k.head_dim == q.head_dim && k.n_rot == q.n_rot &&
         k.pairs == q.pairs && k.x != q.x && q.n_rot != 0;
}

bool joins(const RopeCall& k, const KvAppendCall& next) {
  return next.k == k.x && next.n_tokens == k.n_tokens && next.n_kv_heads == k.n_heads && next.head_dim == k.head_dim &&
         k.n_tokens <= decode_tokens;
}

Status run_joint(cudaStream_t stream, const RopeCall& q, const RopeCall& k, const KvAppendCall& append) {
  if (q.n_tokens == 0) return {};
  const uint32_t half = q.n_rot / 2;
  const Items n{q.n_heads * half, k.n_heads * half, k.n_heads * (k.head_dim - k.n_rot), k.n_heads * k.head_dim};
  const LaunchShape shape{.grid_x = blocks_for(uint64_t{n.queries} + n.pairs + n.keys + n.values, threads),
                          .grid_y = q.n_tokens,
                          .block_x = threads,
                          .early = true};
  const LaunchInfo counted = joint_info("rope_append", std::array<KernelCall, 3>{q, k, append});
  if (append.type == KvType::f16) return launch(stream, counted, shape, rope_append_kernel<uint16_t>, q, k, append, n);
  return launch(stream, counted, shape, rope_append_kernel<float>, q, k, append, n);
}

}  // namespace sluice::gpu
