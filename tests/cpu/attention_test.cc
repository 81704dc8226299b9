#include <doctest/doctest.h>

#include <algorithm>

#include "core/dtype.h"
#include "tests/cpu/kernel_inputs.h"

using namespace sluice;
using namespace sluice::cpu;
using namespace sluice::cpu::test;

namespace {

struct Shape {
  uint32_t n_kv_heads, group, head_dim, page_tokens;
  KvType type;
  float softcap;
  uint32_t window;
};

// Keys and values of one sequence: as numbers, and in pages whose free cells are NaN.
struct Sequence {
  uint32_t n_cells, n_before;
  std::vector<float> k, v;  // cells x kv heads x head_dim, as stored
  std::vector<std::vector<std::byte>> k_memory, v_memory;
  std::vector<std::byte*> k_pages, v_pages;
};

float stored(KvType type, float x) { return type == KvType::f16 ? half_to_float(float_to_half(x)) : x; }

std::vector<std::vector<std::byte>> to_pages(const Shape& s, uint32_t n_cells, const std::vector<float>& x) {
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
  return pages;
}

Sequence make_sequence(Random& random, const Shape& s, uint32_t n_cells) {
  Sequence q{n_cells, n_cells, {}, {}, {}, {}, {}, {}};
  const size_t n = size_t{n_cells} * s.n_kv_heads * s.head_dim;
  q.k = random.normals(n, 1.5f), q.v = random.normals(n);
  for (float& x : q.k) x = stored(s.type, x);
  for (float& x : q.v) x = stored(s.type, x);
  q.k_memory = to_pages(s, n_cells, q.k), q.v_memory = to_pages(s, n_cells, q.v);
  for (auto& page : q.k_memory) q.k_pages.push_back(page.data());
  for (auto& page : q.v_memory) q.v_pages.push_back(page.data());
  return q;
}

// A batch of queries over several sequences.
struct Scene {
  Shape shape;
  std::vector<Sequence> sequences;
  std::vector<TokenSlot> tokens;
  bool tree = false;
  std::vector<float> q;

  uint32_t n_heads() const { return shape.n_kv_heads * shape.group; }
  size_t row() const { return size_t{n_heads()} * shape.head_dim; }
  float scale() const { return 1 / std::sqrt(static_cast<float>(shape.head_dim)); }

  // Spans of pages [first, first + n) of each sequence, cut where it ends.
  std::vector<KvSpan> spans(uint32_t first = 0, uint32_t n = UINT32_MAX) const {
    std::vector<KvSpan> all;
    for (const Sequence& s : sequences) {
      const auto pages = static_cast<uint32_t>(s.k_pages.size());
      const uint32_t from = std::min(first, pages);
      all.push_back({s.k_pages.data() + from, s.v_pages.data() + from, from, std::min(n, pages - from), s.n_before});
    }
    return all;
  }
  AttentionCall call(const std::vector<KvSpan>& with, float* out) const {
    return {q.data(),
            tokens.data(),
            with.data(),
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
    const uint32_t before = sequences[t.seq].n_before;
    if (!tree || cell < before) return tree ? true : distance >= 0;
    return cell - before < 64 && (t.ancestors >> (cell - before) & 1) != 0;
  }
};

std::vector<float> attend(Isa isa, const Scene& scene, uint32_t shares = 1) {
  std::vector<float> out(scene.tokens.size() * scene.row());
  const auto spans = scene.spans();
  run_in_shares(isa, scene.call(spans, out.data()), shares);
  return out;
}

// Several calls of `pages` pages each that carry the state.
std::vector<float> attend_in_parts(Isa isa, const Scene& scene, uint32_t pages, uint32_t shares) {
  std::vector<float> out(scene.tokens.size() * scene.row());
  std::vector<float> state(scene.tokens.size() * scene.n_heads() * (scene.shape.head_dim + 2), NAN);
  size_t most = 0;
  for (const Sequence& s : scene.sequences) most = std::max(most, s.k_pages.size());
  for (uint32_t first = 0; first < most; first += pages) {
    const auto spans = scene.spans(first, pages);
    AttentionCall call = scene.call(spans, out.data());
    call.start = first == 0;
    call.finish = first + pages >= most;
    call.state = state.data();
    run_in_shares(isa, call, shares);
  }
  return out;
}

// One head of one query in double precision; `size` is what rounding errors are measured against.
void reference_head(const Scene& scene, size_t t, uint32_t head, std::vector<double>& want, std::vector<double>& size) {
  const Shape& s = scene.shape;
  const Sequence& sequence = scene.sequences[scene.tokens[t].seq];
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

void check_against_reference(const Scene& scene, const std::vector<float>& out) {
  std::vector<double> want, size;
  for (size_t t = 0; t < scene.tokens.size(); ++t)
    for (uint32_t head = 0; head < scene.n_heads(); ++head) {
      reference_head(scene, t, head, want, size);
      const float* got = &out[t * scene.row() + size_t{head} * scene.shape.head_dim];
      for (uint32_t d = 0; d < scene.shape.head_dim; ++d) REQUIRE(close(double{got[d]}, want[d], 0, 3e-6 * size[d]));
    }
}

// At most max_tokens tokens at the end of each sequence, or a draft tree there.
Scene make_scene(Random& random, Shape shape, bool tree, uint32_t max_tokens = 6) {
  Scene scene{shape, {}, {}, tree, {}};
  const uint32_t n_sequences = random.pick(1, 3);
  for (uint32_t i = 0; i < n_sequences; ++i) {
    Sequence s = make_sequence(random, shape, random.pick(1, 300));
    const uint32_t n = std::min(random.pick(1, max_tokens), s.n_cells);
    s.n_before = s.n_cells - n;
    std::vector<uint64_t> masks;
    for (uint32_t j = 0; j < n; ++j) {
      const uint32_t parent = random.pick(0, j);  // j: no parent
      masks.push_back(tree ? (parent == j ? 0 : masks[parent]) | uint64_t{1} << j : 0);
      scene.tokens.push_back({i, s.n_before + j, masks.back()});
    }
    scene.sequences.push_back(std::move(s));
  }
  scene.q = random.normals(scene.tokens.size() * scene.row(), 1.5f);
  return scene;
}

Shape random_shape(Random& random) {
  Shape s{};
  s.n_kv_heads = random.pick(1, 9);
  s.group = s.n_kv_heads <= 2 ? random.one_of({1u, 4u, 5u, 8u}) : random.one_of({1u, 2u, 3u});
  s.head_dim = random.one_of({32u, 64u, 64u, 80u, 96u, 128u, 256u, 20u, 100u});
  s.page_tokens = random.one_of({16u, 64u, 256u});
  s.type = random.one_of({KvType::f16, KvType::f32});
  s.softcap = random.one_of({0.0f, 0.0f, 5.0f, 50.0f});
  s.window = random.one_of({0u, 0u, 1u, 17u, 100u});
  return s;
}

constexpr Shape plain_shape{3, 3, 64, 16, KvType::f16, 0, 0};

// The scene of one of its tokens alone.
Scene alone(const Scene& scene, size_t token) {
  Scene one = scene;
  one.tokens = {scene.tokens[token]};
  one.q.assign(scene.q.begin() + static_cast<long>(token * scene.row()),
               scene.q.begin() + static_cast<long>((token + 1) * scene.row()));
  return one;
}

}  // namespace

TEST_CASE("attention: double precision, over heads, widths, pages, windows, caps, trees and types") {
  Random random(20);
  for (int round = 0; round < 80; ++round) {
    const Scene scene = make_scene(random, random_shape(random), round % 4 == 0);
    for (const Isa isa : supported_isas()) check_against_reference(scene, attend(isa, scene));
  }
}

TEST_CASE("attention: same bits on every ISA, for 1 to 5 shares, and for pages split over calls") {
  Random random(21);
  for (int round = 0; round < 40; ++round) {
    const Scene scene = make_scene(random, random_shape(random), round % 4 == 0);
    const std::vector<float> want = attend(Isa::scalar, scene);
    for (const Isa isa : supported_isas()) {
      for (uint32_t shares = 1; shares <= 5; ++shares) REQUIRE(same_bits(attend(isa, scene, shares), want));
      for (uint32_t pages = 1; pages <= 3; ++pages) REQUIRE(same_bits(attend_in_parts(isa, scene, pages, pages), want));
    }
  }
}

TEST_CASE("attention: a token's bits are the same alone and in a batch of several sequences") {
  Random random(22);
  for (int round = 0; round < 20; ++round) {
    const Scene scene = make_scene(random, random_shape(random), round % 4 == 0);
    const std::vector<float> batch = attend(best_isa(), scene, 2);
    for (size_t t = 0; t < scene.tokens.size(); ++t) {
      const std::vector<float> one = attend(best_isa(), alone(scene, t));
      REQUIRE(std::memcmp(one.data(), &batch[t * scene.row()], one.size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("attention: in a long prompt each token has the bits that it has alone") {
  Random random(25);
  for (int round = 0; round < 12; ++round) {
    const Scene scene = make_scene(random, random_shape(random), false, 150);
    for (const Isa isa : supported_isas()) {
      if (isa == Isa::scalar) continue;
      const std::vector<float> batch = attend(isa, scene, 3);
      if (round < 3) check_against_reference(scene, batch);
      REQUIRE(same_bits(attend_in_parts(isa, scene, 2, 2), batch));
      for (size_t t = 0; t < scene.tokens.size(); t += 1 + t % 7) {
        const std::vector<float> one = attend(isa, alone(scene, t));
        REQUIRE(std::memcmp(one.data(), &batch[t * scene.row()], one.size() * sizeof(float)) == 0);
      }
    }
  }
}

TEST_CASE("attention: more shares than heads, and every head on a share of its own") {
  Random random(23);
  Scene scene = make_scene(random, plain_shape, false);
  const std::vector<float> want = attend(Isa::scalar, scene);
  for (const uint32_t shares : {9u, 16u, 200u}) CHECK(same_bits(attend(best_isa(), scene, shares), want));
}

TEST_CASE("attention: one token of nine equal heads keeps two threads equally busy") {
  Random random(24);
  Scene scene{plain_shape, {}, {{0, 199, 0}}, false, {}};
  scene.sequences.push_back(make_sequence(random, plain_shape, 200));
  scene.q = random.normals(scene.row());
  const auto spans = scene.spans();
  for (uint32_t share = 0; share < 2; ++share) {
    std::vector<float> out(scene.row(), 123.0f);
    run(kernels(best_isa()), scene.call(spans, out.data()), {share, 2});
    uint32_t heads = 0;
    for (uint32_t h = 0; h < 9; ++h) heads += out[size_t{h} * 64] != 123.0f;
    CHECK(heads >= 4);
    CHECK(heads <= 5);
  }
}

TEST_CASE("attention: pages that a window hides are not touched and do not matter") {
  Random random(25);
  Shape shape = plain_shape;
  shape.window = 40;
  Scene scene{shape, {}, {{0, 299, 0}, {0, 298, 0}}, false, {}};
  scene.sequences.push_back(make_sequence(random, shape, 300));
  scene.q = random.normals(2 * scene.row());
  const std::vector<float> want = attend(Isa::scalar, scene);
  check_against_reference(scene, want);
  // Cell 259 is the first that is seen, in page 16.
  for (size_t page = 0; page < 16; ++page)
    scene.sequences[0].k_pages[page] = scene.sequences[0].v_pages[page] = nullptr;
  for (const Isa isa : supported_isas()) {
    CHECK(same_bits(attend(isa, scene, 2), want));
    CHECK(same_bits(attend_in_parts(isa, scene, 3, 1), want));
  }
}

TEST_CASE("attention: a draft chain gives the bits of plain decoding, and siblings do not see each other") {
  Random random(26);
  Scene plain{plain_shape, {}, {}, false, {}};
  plain.sequences.push_back(make_sequence(random, plain_shape, 60));
  plain.sequences[0].n_before = 50;
  for (uint32_t j = 0; j < 10; ++j) plain.tokens.push_back({0, 50 + j, 0});
  plain.q = random.normals(10 * plain.row());
  Scene chain = plain;
  chain.tree = true;
  for (uint32_t j = 0; j < 10; ++j) chain.tokens[j].ancestors = (uint64_t{2} << j) - 1;
  CHECK(same_bits(attend(best_isa(), chain), attend(best_isa(), plain)));

  // Two drafts for the same place, the second one cell further on.
  Scene siblings = alone(chain, 1);
  siblings.tokens[0].ancestors = 2;
  const std::vector<float> before = attend(best_isa(), siblings);
  check_against_reference(siblings, before);
  std::fill_n(siblings.sequences[0].k_memory[3].begin() + 2 * 64 * 2, 64 * 2, std::byte{0xff});
  CHECK(same_bits(attend(best_isa(), siblings), before));
}

TEST_CASE("attention: large scores neither overflow nor drown, NaN stays with its query") {
  Random random(27);
  Shape shape = plain_shape;
  shape.type = KvType::f32;
  Scene scene{shape, {}, {{0, 99, 0}, {0, 98, 0}}, false, {}};
  scene.sequences.push_back(make_sequence(random, shape, 100));
  scene.q = random.normals(2 * scene.row(), 500);
  for (const Isa isa : supported_isas()) {
    const std::vector<float> out = attend(isa, scene);
    CHECK(std::all_of(out.begin(), out.end(), [](float x) { return std::isfinite(x); }));
  }
  const std::vector<float> before = attend(best_isa(), scene);
  scene.q[0] = NAN;
  const std::vector<float> after = attend(best_isa(), scene);
  CHECK(std::all_of(after.begin(), after.begin() + 64, [](float x) { return std::isnan(x); }));
  CHECK(std::memcmp(&after[64], &before[64], (after.size() - 64) * sizeof(float)) == 0);
}
