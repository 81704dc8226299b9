// Random batches of queries over paged sequences in device memory, and what attention should give for them.
#pragma once

#include <algorithm>
#include <memory>

#include "core/dtype.h"
#include "tests/cpu/kernel_inputs.h"
#include "tests/gpu/kernels/device_data.h"

namespace sluice::gpu::test {

using sluice::cpu::test::close;
using sluice::cpu::test::Random;

struct HeadsAndPages {
  uint32_t n_kv_heads, group, head_dim, page_tokens;
  KvType type;
  float softcap;
  uint32_t window;
};

// Keys and values of one sequence: as numbers, and in pages of device memory whose free cells are NaN.
struct Sequence {
  uint32_t n_cells, n_before;
  std::vector<float> k, v;  // cells x kv heads x head_dim, as stored
  std::vector<DeviceArray<std::byte>> k_memory, v_memory;
  std::vector<std::byte*> k_pages, v_pages;
};

inline std::vector<DeviceArray<std::byte>> to_pages(const HeadsAndPages& s, uint32_t n_cells,
                                                    const std::vector<float>& x) {
  const size_t width = kv_bytes(s.type);
  const size_t page_bytes = size_t{s.n_kv_heads} * s.page_tokens * s.head_dim * width;
  std::vector<std::vector<std::byte>> pages((n_cells + s.page_tokens - 1) / s.page_tokens);
  for (auto& page : pages) page.assign(page_bytes, std::byte{0xff});
  for (uint32_t c = 0; c < n_cells; ++c)
    for (uint32_t h = 0; h < s.n_kv_heads; ++h)
      for (uint32_t d = 0; d < s.head_dim; ++d) {
        const float value = x[(size_t{c} * s.n_kv_heads + h) * s.head_dim + d];
        const size_t at = (size_t{h} * s.page_tokens + c % s.page_tokens) * s.head_dim + d;
        const uint32_t bits = s.type == KvType::f16 ? float_to_half(value) : __builtin_bit_cast(uint32_t, value);
        std::memcpy(pages[c / s.page_tokens].data() + at * width, &bits, width);
      }
  std::vector<DeviceArray<std::byte>> memory;
  for (const auto& page : pages) memory.emplace_back(page);
  return memory;
}

inline std::shared_ptr<Sequence> make_sequence(Random& random, const HeadsAndPages& s, uint32_t n_cells) {
  auto q = std::make_shared<Sequence>();
  q->n_cells = q->n_before = n_cells;
  const size_t n = size_t{n_cells} * s.n_kv_heads * s.head_dim;
  q->k = random.normals(n, 1.5f), q->v = random.normals(n);
  if (s.type == KvType::f16)
    for (auto* values : {&q->k, &q->v})
      for (float& x : *values) x = half_to_float(float_to_half(x));
  q->k_memory = to_pages(s, n_cells, q->k), q->v_memory = to_pages(s, n_cells, q->v);
  for (auto& page : q->k_memory) q->k_pages.push_back(page.data());
  for (auto& page : q->v_memory) q->v_pages.push_back(page.data());
  return q;
}

// Tables of spans as kernels read them.
struct Spans {
  std::vector<Table<std::byte*>> pages;
  std::unique_ptr<Table<KvSpan>> table;
};

// A batch of queries over several sequences.
struct Scene {
  HeadsAndPages shape;
  std::vector<std::shared_ptr<Sequence>> sequences;
  std::vector<TokenSlot> tokens;
  bool tree = false;
  std::vector<float> q;

  uint32_t n_heads() const { return shape.n_kv_heads * shape.group; }
  size_t row() const { return size_t{n_heads()} * shape.head_dim; }
  size_t n_out() const { return tokens.size() * row(); }
  size_t n_state() const { return tokens.size() * n_heads() * (shape.head_dim + 2); }
  uint64_t least_scratch() const { return attention_scratch_bytes(n_heads(), shape.head_dim); }
  float scale() const { return 1 / std::sqrt(static_cast<float>(shape.head_dim)); }

  // Spans of pages [first, first + n) of each sequence, cut where it ends.
  Spans spans(uint32_t first = 0, uint32_t n = UINT32_MAX) const {
    Spans spans;
    std::vector<KvSpan> all;
    for (const auto& s : sequences) {
      const auto pages = static_cast<uint32_t>(s->k_pages.size());
      const uint32_t from = std::min(first, pages), count = std::min(n, pages - from);
      const auto some = [&](const std::vector<std::byte*>& p) {
        spans.pages.emplace_back(std::vector<std::byte*>(p.begin() + from, p.begin() + from + count));
        return spans.pages.back().data();
      };
      std::byte* const* k = some(s->k_pages);
      all.push_back({k, some(s->v_pages), from, count, s->n_before});
    }
    spans.table = std::make_unique<Table<KvSpan>>(all);
    return spans;
  }
  AttentionCall call(const float* device_q, const TokenSlot* device_tokens, const Spans& with, float* out) const {
    return {device_q,
            device_tokens,
            with.table->data(),
            static_cast<uint32_t>(tokens.size()),
            n_heads(),
            shape.n_kv_heads,
            shape.head_dim,
            shape.page_tokens,
            shape.type,
            scale(),
            shape.softcap,
            shape.window,
            tree,
            true,
            true,
            nullptr,
            out};
  }
  bool sees(const TokenSlot& t, uint32_t cell) const {
    const int64_t distance = int64_t{t.cell} - cell;
    if (shape.window > 0 && distance >= shape.window) return false;
    const uint32_t before = sequences[t.seq]->n_before;
    if (!tree || cell < before) return tree ? true : distance >= 0;
    return cell - before < 64 && (t.ancestors >> (cell - before) & 1) != 0;
  }
  // Of some of its tokens.
  Scene part(size_t first, size_t n) const {
    Scene some = *this;
    const auto at = [](size_t i) { return static_cast<long>(i); };
    some.tokens.assign(tokens.begin() + at(first), tokens.begin() + at(first + n));
    some.q.assign(q.begin() + at(first * row()), q.begin() + at((first + n) * row()));
    return some;
  }
};

inline std::vector<float> attend(const Scene& scene, uint64_t scratch_bytes = 1 << 20) {
  const Context context(scratch_bytes);
  const DeviceArray<float> q(scene.q), out(scene.n_out());
  const Table<TokenSlot> tokens(scene.tokens);
  const Spans spans = scene.spans();
  run_call(scene.call(q.data(), tokens.data(), spans, out.data()), context.get());
  return out.get();
}

// By a device of so many SMs.
inline std::vector<float> attend_on(uint32_t n_sms, const Scene& scene) {
  const Context context(1 << 20);
  KernelContext device = context.get();
  device.n_sms = n_sms;
  const DeviceArray<float> q(scene.q), out(scene.n_out());
  const Table<TokenSlot> tokens(scene.tokens);
  const Spans spans = scene.spans();
  run_call(scene.call(q.data(), tokens.data(), spans, out.data()), device);
  return out.get();
}

// Several calls of `pages` pages each that carry the state.
inline std::vector<float> attend_in_parts(const Scene& scene, uint32_t pages, uint64_t scratch_bytes = 1 << 20) {
  const Context context(scratch_bytes);
  const DeviceArray<float> q(scene.q), out(scene.n_out()), state(scene.n_state());
  const Table<TokenSlot> tokens(scene.tokens);
  size_t most = 0;
  for (const auto& s : scene.sequences) most = std::max(most, s->k_pages.size());
  for (uint32_t first = 0; first < most; first += pages) {
    const Spans spans = scene.spans(first, pages);
    AttentionCall call = scene.call(q.data(), tokens.data(), spans, out.data());
    call.start = first == 0;
    call.finish = first + pages >= most;
    call.state = state.data();
    run_call(call, context.get());
  }
  return out.get();
}

// One head of one query in double precision; `size` is what rounding errors are measured against.
inline void reference_head(const Scene& scene, size_t t, uint32_t head, std::vector<double>& want,
                           std::vector<double>& size) {
  const HeadsAndPages& s = scene.shape;
  const Sequence& sequence = *scene.sequences[scene.tokens[t].seq];
  const float* q = &scene.q[t * scene.row() + size_t{head} * s.head_dim];
  std::vector<double> score(sequence.n_cells, -INFINITY);
  for (uint32_t c = 0; c < sequence.n_cells; ++c) {
    if (!scene.sees(scene.tokens[t], c)) continue;
    const float* k = &sequence.k[(size_t{c} * s.n_kv_heads + head / s.group) * s.head_dim];
    double dot = 0;
    for (uint32_t d = 0; d < s.head_dim; ++d) dot += double{q[d]} * double{k[d]};
    score[c] = dot * double{scene.scale()};
    if (s.softcap > 0) score[c] = double{s.softcap} * std::tanh(score[c] / double{s.softcap});
  }
  const double most = *std::max_element(score.begin(), score.end());
  double total = 0;
  for (double& x : score) total += x = std::exp(x - most);
  want.assign(s.head_dim, 0), size.assign(s.head_dim, 0);
  for (uint32_t c = 0; c < sequence.n_cells; ++c) {
    const float* v = &sequence.v[(size_t{c} * s.n_kv_heads + head / s.group) * s.head_dim];
    for (uint32_t d = 0; d < s.head_dim; ++d) {
      want[d] += score[c] / total * double{v[d]};
      size[d] += score[c] / total * std::abs(double{v[d]});
    }
  }
}

// The exponentials of prompts over f16 pages are those of the hardware.
inline void check_against_reference(const Scene& scene, const std::vector<float>& out) {
  const bool fast = scene.tokens.size() > decode_tokens && scene.shape.type == KvType::f16 && !scene.tree;
  const double error = fast ? 6e-5 : 5e-6;
  std::vector<double> want, size;
  for (size_t t = 0; t < scene.tokens.size(); ++t)
    for (uint32_t head = 0; head < scene.n_heads(); ++head) {
      reference_head(scene, t, head, want, size);
      const float* got = &out[t * scene.row() + size_t{head} * scene.shape.head_dim];
      for (uint32_t d = 0; d < scene.shape.head_dim; ++d) REQUIRE(close(double{got[d]}, want[d], 0, error * size[d]));
    }
}

// At most max_tokens tokens at the end of each sequence of at most max_cells, or a draft tree there.
inline Scene make_scene(Random& random, HeadsAndPages shape, bool tree, uint32_t max_tokens, uint32_t max_cells) {
  Scene scene{shape, {}, {}, tree, {}};
  const uint32_t n_sequences = random.pick(1, 3);
  for (uint32_t i = 0; i < n_sequences; ++i) {
    const auto s = make_sequence(random, shape, random.pick(1, max_cells));
    const uint32_t n = std::min(random.pick(1, max_tokens), s->n_cells);
    s->n_before = s->n_cells - n;
    std::vector<uint64_t> masks;
    for (uint32_t j = 0; j < n; ++j) {
      const uint32_t parent = random.pick(0, j);  // j: no parent
      masks.push_back(tree ? (parent == j ? 0 : masks[parent]) | uint64_t{1} << j : 0);
      scene.tokens.push_back({i, s->n_before + j, masks.back()});
    }
    scene.sequences.push_back(s);
  }
  scene.q = random.normals(scene.n_out(), 1.5f);
  return scene;
}

inline HeadsAndPages random_shape(Random& random) {
  HeadsAndPages s{};
  s.n_kv_heads = random.pick(1, 3);
  s.group = random.one_of({1u, 2u, 3u, 4u, 5u, 8u});
  s.head_dim = random.one_of({32u, 64u, 64u, 80u, 96u, 128u, 256u, 20u, 100u});
  s.page_tokens = random.one_of({16u, 64u, 256u});
  s.type = random.one_of({KvType::f16, KvType::f32});
  s.softcap = random.one_of({0.0f, 0.0f, 5.0f, 50.0f});
  s.window = random.one_of({0u, 0u, 1u, 17u, 100u});
  return s;
}

}  // namespace sluice::gpu::test
