#include "tests/support/tiny_graph.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <string>

#include "core/bytes.h"
#include "core/error.h"

namespace sluice::testing {
namespace {

using Row = std::vector<double>;
using Rows = std::vector<Row>;

class Maker {
 public:
  explicit Maker(const TinyOptions& options) : o_(options), random_(options.seed) {}

  TinyModel make() {
    Graph& g = model_.graph;
    g.architecture = "tiny";
    g.name = "tiny";
    g.hidden_size = o_.hidden;
    g.n_vocab = o_.n_vocab;
    g.n_layers = o_.n_layers;
    g.context_length = 4096;
    g.n_heads = o_.n_heads;
    g.n_kv_heads = o_.n_kv_heads;
    g.head_dim = o_.head_dim;
    g.ropes.push_back(rope(10000.0, o_.head_dim));
    if (o_.alternate) g.ropes.push_back(rope(500.0, o_.head_dim / 2));
    model_.file.resize(96);  // as a header would: nothing begins at an io_unit
    const TensorId table = matrix("table", o_.n_vocab, o_.hidden, 1.0);
    g.ops.push_back(EmbedOp{table, 1.25f});
    for (uint32_t layer = 0; layer < o_.n_layers; ++layer) add_layer(layer);
    const TensorId norm = vector("norm", o_.hidden, true);
    g.ops.push_back(HeadOp{1e-5f, o_.logit_softcap, norm, o_.tied ? table : matrix("output", o_.n_vocab, o_.hidden)});
    return std::move(model_);
  }

 private:
  RopeSpec rope(double base, uint32_t n_rot) const {
    RopeSpec made{o_.pairs, n_rot, 1, {}};
    for (uint32_t i = 0; i < n_rot / 2; ++i) made.freqs.push_back(static_cast<float>(std::pow(base, -2.0 * i / n_rot)));
    return made;
  }
  TensorId post_norm(const char* name) { return o_.post_norms ? vector(name, o_.hidden, true) : TensorId{}; }

  void add_layer(uint32_t layer) {
    Graph& g = model_.graph;
    const bool odd = o_.alternate && layer % 2 == 1;
    const uint32_t q = o_.n_heads * o_.head_dim, kv = o_.n_kv_heads * o_.head_dim;
    AttentionInOp in{layer,
                     odd ? 1u : 0u,
                     1e-5f,
                     vector("attn_norm", o_.hidden, true),
                     matrix("wq", q, o_.hidden),
                     matrix("wk", kv, o_.hidden),
                     matrix("wv", kv, o_.hidden),
                     {},
                     {},
                     {},
                     {},
                     {}};
    if (o_.biases) in.bq = vector("bq", q), in.bk = vector("bk", kv), in.bv = vector("bv", kv);
    if (o_.head_norms) in.q_norm = vector("q_norm", o_.head_dim, true), in.k_norm = vector("k_norm", o_.head_dim, true);
    g.ops.push_back(in);
    g.ops.push_back(
        AttentionOp{layer, 1.0f / std::sqrt(static_cast<float>(o_.head_dim)), o_.softcap, odd ? 0 : o_.window});
    const TensorId wo = matrix("wo", o_.hidden, q);
    const TensorId bo = o_.biases ? vector("bo", o_.hidden) : TensorId{};
    g.ops.push_back(AttentionOutOp{1e-5f, wo, bo, post_norm("attn_post_norm")});
    const TensorId norm = vector("ffn_norm", o_.hidden, true);
    if (o_.experts == 0) {
      const TensorId gate = matrix("gate", o_.ffn, o_.hidden), up = matrix("up", o_.ffn, o_.hidden);
      const TensorId down = matrix("down", o_.hidden, o_.ffn);
      g.ops.push_back(FfnOp{1e-5f, o_.activation, norm, gate, up, down, post_norm("ffn_post_norm")});
      return;
    }
    g.ops.push_back(RouteOp{1e-5f, o_.used, norm, matrix("router", o_.experts, o_.hidden, 2.0, 1, DType::f32)});
    const TensorId gate = matrix("gates", o_.ffn, o_.hidden, 1, o_.experts);
    const TensorId up = matrix("ups", o_.ffn, o_.hidden, 1, o_.experts);
    g.ops.push_back(ExpertsOp{o_.activation, gate, up, matrix("downs", o_.hidden, o_.ffn, 1, o_.experts)});
  }

  TensorId add(const char* name, DType type, uint32_t rows, uint32_t cols, uint32_t experts) {
    TensorSpec t{name + std::to_string(model_.graph.tensors.size()), type, rows, cols, experts, {}};
    model_.file.resize(align_up(model_.file.size(), 32) + o_.gap);
    t.extent = {FileId{0}, model_.file.size(), t.row_size() * rows * experts};
    model_.file.resize(model_.file.size() + t.extent.bytes);
    model_.graph.tensors.push_back(t);
    return TensorId{static_cast<uint32_t>(model_.graph.tensors.size() - 1)};
  }
  float normal(double scale) { return static_cast<float>(std::normal_distribution<double>(0, scale)(random_)); }

  TensorId vector(const char* name, uint32_t size, bool norm = false) {
    const TensorId id = add(name, DType::f32, 1, size, 1);
    std::byte* at = model_.file.data() + model_.graph.tensor(id).extent.offset;
    for (uint32_t i = 0; i < size; ++i) {
      const float v = norm ? 1 + normal(0.2) : normal(0.2);
      std::memcpy(at + 4ull * i, &v, 4);
    }
    return id;
  }
  TensorId matrix(const char* name, uint32_t rows, uint32_t cols, double gain = 1.0, uint32_t experts = 1) {
    return matrix(name, rows, cols, gain, experts, o_.dtype);
  }
  TensorId matrix(const char* name, uint32_t rows, uint32_t cols, double gain, uint32_t experts, DType type) {
    const TensorId id = add(name, type, rows, cols, experts);
    const double scale = gain / std::sqrt(static_cast<double>(cols));
    std::byte* at = model_.file.data() + model_.graph.tensor(id).extent.offset;
    const uint64_t n = uint64_t{rows} * cols * experts;
    for (uint64_t i = 0; i < n; i += info(type).block_elements, at += info(type).block_bytes) fill(type, scale, at);
    return id;
  }
  // One block of a type with values of about `scale`.
  void fill(DType type, double scale, std::byte* at) {
    const float f = normal(scale);
    const uint16_t h = float_to_half(f);
    if (type == DType::f32) std::memcpy(at, &f, 4);
    else if (type == DType::f16) std::memcpy(at, &h, 2);
    else if (type == DType::q8_0) fill_quants(at, 32, float_to_half(static_cast<float>(scale / 64)));
    else if (type == DType::q4_0) fill_quants(at, 16, float_to_half(static_cast<float>(scale / 4)));
    else if (type == DType::q6_k) fill_q6_k(at, float_to_half(static_cast<float>(scale / 160)));
    else fatal(__FILE__, __LINE__, "no such type in tiny models");
  }
  // 6-bit values, sixteen scales of 6 to 13, and theirs.
  void fill_q6_k(std::byte* at, uint16_t scale) {
    for (uint32_t i = 0; i < 192; ++i) at[i] = static_cast<std::byte>(random_() & 0xFF);
    for (uint32_t i = 0; i < 16; ++i) at[192 + i] = static_cast<std::byte>(6 + random_() % 8);
    std::memcpy(at + 208, &scale, 2);
  }
  void fill_quants(std::byte* at, uint32_t n, uint16_t scale) {
    std::memcpy(at, &scale, 2);
    for (uint32_t i = 0; i < n; ++i) at[2 + i] = static_cast<std::byte>(random_() & 0xFF);
  }

  const TinyOptions o_;
  std::mt19937_64 random_;
  TinyModel model_;
};

void decode_q6_k(const std::byte* at, Row& out) {
  const auto byte = [at](uint32_t i) { return std::to_integer<int>(at[i]); };
  uint16_t h = 0;
  std::memcpy(&h, at + 208, 2);
  for (uint32_t c = 0; c < 256; ++c) {
    const uint32_t half = c / 128, part = c % 128 / 32, i = c % 32;
    const int low = byte(64 * half + 32 * (part % 2) + i) >> (4 * (part / 2)) & 15;
    const int high = byte(128 + 32 * half + i) >> (2 * part) & 3;
    out.push_back(half_to_float(h) * double(static_cast<int8_t>(byte(192 + c / 16))) * ((low | high << 4) - 32));
  }
}

// The formats, from core/dtype.h.
void decode_block(DType type, const std::byte* at, Row& out) {
  uint16_t h = 0;
  float f = 0;
  std::memcpy(&h, at, 2);
  if (type == DType::f32) std::memcpy(&f, at, 4);
  const auto byte = [at](uint32_t i) { return std::to_integer<int>(at[2 + i]); };
  const double d = half_to_float(h);
  switch (type) {
    case DType::f32: out.push_back(f); break;
    case DType::f16: out.push_back(d); break;
    case DType::q8_0:
      for (uint32_t i = 0; i < 32; ++i) out.push_back(d * static_cast<int8_t>(byte(i)));
      break;
    case DType::q4_0:
      for (uint32_t i = 0; i < 16; ++i) out.push_back(d * ((byte(i) & 15) - 8));
      for (uint32_t i = 0; i < 16; ++i) out.push_back(d * ((byte(i) >> 4) - 8));
      break;
    case DType::q6_k: decode_q6_k(at, out); break;
    default: fatal(__FILE__, __LINE__, "no such type in tiny models");
  }
}

class Forward {
 public:
  Forward(const TinyModel& model, const std::vector<TinyCell>& cells) : m_(model), g_(model.graph), cells_(cells) {}

  TinyResult run() {
    for (const Op& op : g_.ops) std::visit([this](const auto& o) { this->apply(o); }, op);
    return std::move(result_);
  }

 private:
  Row vec(TensorId id) const { return id.valid() ? decode(m_, id) : Row(); }
  static Row product(const Row& w, const Row& x, const Row& bias = {}) {
    Row out(w.size() / x.size());
    for (size_t r = 0; r < out.size(); ++r) {
      out[r] = std::inner_product(x.begin(), x.end(), w.begin() + static_cast<long>(r * x.size()), 0.0);
      if (!bias.empty()) out[r] += bias[r];
    }
    return out;
  }
  Rows product(const Rows& x, TensorId id, TensorId bias) const {
    const Row w = vec(id), b = vec(bias);
    Rows out;
    for (const Row& row : x) out.push_back(product(w, row, b));
    return out;
  }
  static void norm(double* x, size_t n, const Row& w, double eps) {
    double sum = 0;
    for (size_t i = 0; i < n; ++i) sum += x[i] * x[i];
    const double s = 1 / std::sqrt(sum / static_cast<double>(n) + eps);
    for (size_t i = 0; i < n; ++i) x[i] *= s * w[i];
  }
  Rows normed(TensorId id, double eps) const {
    Rows x = h_;
    const Row w = vec(id);
    for (Row& row : x) norm(row.data(), row.size(), w, eps);
    return x;
  }
  void rotate(Rows& x, const RopeSpec& rope) const {
    const uint32_t half = rope.n_rot / 2;
    for (size_t t = 0; t < x.size(); ++t)
      for (size_t head = 0; head < x[t].size(); head += g_.head_dim)
        for (uint32_t i = 0; i < half; ++i) {
          const double angle = cells_[t].position * static_cast<double>(rope.freqs[i]);
          double& a = x[t][head + (rope.pairs ? 2 * i : i)];
          double& b = x[t][head + (rope.pairs ? 2 * i + 1 : i + half)];
          const double c = std::cos(angle), s = std::sin(angle), a0 = a;
          a = a0 * c - b * s;
          b = a0 * s + b * c;
        }
  }
  void head_norms(Rows& x, TensorId id, double eps) const {
    if (!id.valid()) return;
    const Row w = vec(id);
    for (Row& row : x)
      for (size_t head = 0; head < row.size(); head += g_.head_dim) norm(&row[head], g_.head_dim, w, eps);
  }
  static double apply(Activation activation, double x) {
    if (activation == Activation::silu) return x / (1 + std::exp(-x));
    return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
  }
  Row ffn(const Row& x, Activation activation, TensorId gate, TensorId up, TensorId down, uint32_t expert) const {
    Row a = product(decode(m_, gate, expert), x);
    const Row b = product(decode(m_, up, expert), x);
    for (size_t i = 0; i < a.size(); ++i) a[i] = apply(activation, a[i]) * b[i];
    return product(decode(m_, down, expert), a);
  }
  static void add(Row& to, const Row& what, double weight = 1) {
    for (size_t i = 0; i < to.size(); ++i) to[i] += weight * what[i];
  }

  void add_all(Rows& what, TensorId post_norm, double eps) {
    const Row w = vec(post_norm);
    for (size_t t = 0; t < h_.size(); ++t) {
      if (post_norm.valid()) norm(what[t].data(), what[t].size(), w, eps);
      add(h_[t], what[t]);
    }
  }

  void apply(const EmbedOp& op) {
    const Row table = vec(op.table);
    for (const TinyCell& c : cells_) {
      const auto at = table.begin() + static_cast<long>(c.token) * g_.hidden_size;
      h_.emplace_back(at, at + g_.hidden_size);
      for (double& x : h_.back()) x *= static_cast<double>(op.scale);
    }
  }
  void apply(const AttentionInOp& op) {
    const Rows x = normed(op.norm, op.eps);
    q_ = product(x, op.wq, op.bq);
    k_ = product(x, op.wk, op.bk);
    v_ = product(x, op.wv, op.bv);
    head_norms(q_, op.q_norm, op.eps);
    head_norms(k_, op.k_norm, op.eps);
    rotate(q_, g_.ropes[op.rope]);
    rotate(k_, g_.ropes[op.rope]);
  }
  void apply(const AttentionOp& op) {
    attended_.assign(h_.size(), Row(g_.n_heads * g_.head_dim, 0));
    for (uint32_t t = 0; t < h_.size(); ++t)
      for (uint32_t head = 0; head < g_.n_heads; ++head) attend(op, t, head);
  }
  void attend(const AttentionOp& op, uint32_t t, uint32_t head) {
    const uint32_t d = g_.head_dim, kv = head / (g_.n_heads / g_.n_kv_heads);
    std::vector<uint32_t> cells;
    Row scores;
    for (const uint32_t c : cells_[t].sees) {
      if (op.window > 0 && t - c >= op.window) continue;
      double s = std::inner_product(&q_[t][head * d], &q_[t][head * d] + d, &k_[c][kv * d], 0.0);
      s *= static_cast<double>(op.scale);
      if (op.softcap > 0) s = static_cast<double>(op.softcap) * std::tanh(s / static_cast<double>(op.softcap));
      cells.push_back(c);
      scores.push_back(s);
    }
    const double most = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double& s : scores) sum += s = std::exp(s - most);
    for (size_t i = 0; i < cells.size(); ++i)
      for (uint32_t j = 0; j < d; ++j) attended_[t][head * d + j] += scores[i] / sum * v_[cells[i]][kv * d + j];
  }
  void apply(const AttentionOutOp& op) {
    Rows out = product(attended_, op.wo, op.bo);
    add_all(out, op.post_norm, op.eps);
  }
  void apply(const FfnOp& op) {
    const Rows x = normed(op.norm, op.eps);
    Rows out;
    for (const Row& row : x) out.push_back(ffn(row, op.activation, op.gate, op.up, op.down, 0));
    add_all(out, op.post_norm, op.eps);
    result_.hidden.push_back(h_);
  }
  void apply(const RouteOp& op) {
    x_ = normed(op.norm, op.eps);
    router_ = product(x_, op.router, {});
    used_ = op.used;
  }
  void apply(const ExpertsOp& op) {
    for (size_t t = 0; t < h_.size(); ++t) {
      std::vector<uint32_t> order(router_[t].size());
      std::iota(order.begin(), order.end(), 0u);
      std::stable_sort(order.begin(), order.end(),
                       [&](uint32_t a, uint32_t b) { return router_[t][a] > router_[t][b]; });
      double sum = 0;
      for (uint32_t i = 0; i < used_; ++i) sum += std::exp(router_[t][order[i]]);
      for (uint32_t i = 0; i < used_; ++i)
        add(h_[t], ffn(x_[t], op.activation, op.gate, op.up, op.down, order[i]), std::exp(router_[t][order[i]]) / sum);
    }
    result_.hidden.push_back(h_);
  }
  void apply(const HeadOp& op) {
    result_.logits = product(normed(op.norm, op.eps), op.output, {});
    if (op.softcap == 0) return;
    const auto cap = static_cast<double>(op.softcap);
    for (Row& row : result_.logits)
      for (double& x : row) x = cap * std::tanh(x / cap);
  }

  const TinyModel& m_;
  const Graph& g_;
  const std::vector<TinyCell>& cells_;
  TinyResult result_;
  Rows h_, x_, q_, k_, v_, attended_, router_;
  uint32_t used_ = 0;
};

}  // namespace

TinyModel make_tiny(const TinyOptions& options) { return Maker(options).make(); }

std::vector<double> decode(const TinyModel& model, TensorId id, uint32_t expert) {
  const TensorSpec& t = model.graph.tensor(id);
  const uint64_t bytes = t.extent.bytes / t.experts;
  std::vector<double> out;
  for (uint64_t at = 0; at < bytes; at += info(t.dtype).block_bytes)
    decode_block(t.dtype, model.file.data() + t.extent.offset + expert * bytes + at, out);
  return out;
}

TinyResult tiny_forward(const TinyModel& model, const std::vector<TinyCell>& cells) {
  return Forward(model, cells).run();
}

std::vector<TinyCell> linear_cells(const std::vector<int32_t>& tokens) {
  std::vector<TinyCell> cells;
  for (uint32_t i = 0; i < tokens.size(); ++i) {
    cells.push_back({tokens[i], static_cast<int32_t>(i), std::vector<uint32_t>(i + 1)});
    std::iota(cells.back().sees.begin(), cells.back().sees.end(), 0u);
  }
  return cells;
}

}  // namespace sluice::testing
