#include "engine/machine/measure_model.h"

#include <algorithm>

#include "core/bytes.h"
#include "core/error.h"
#include "engine/machine/timer.h"
#include "offload/plan/cost_model.h"

namespace sluice::engine {
namespace {

constexpr uint32_t many_tokens = 64, page_tokens = 64;
constexpr uint32_t few_pages = 1, more_pages = 9;

struct Sizes {
  uint32_t hidden, heads, kv_heads, head_dim, ffn;
  uint32_t q() const { return heads * head_dim; }
  uint32_t kv() const { return kv_heads * head_dim; }
};

Sizes sizes_of(const Graph& g) {
  uint32_t ffn = 0;
  for (const Op& op : g.ops)
    if (const auto* f = std::get_if<FfnOp>(&op)) ffn = std::max(ffn, g.tensor(f->gate).rows);
  return {g.hidden_size, g.n_heads, g.n_kv_heads, g.head_dim, ffn};
}

bool known(const DeviceRates& rates, Compute compute, const TensorSpec& t) {
  return std::any_of(rates.products.begin(), rates.products.end(), [&](const ProductTimes& p) {
    return p.dtype == t.dtype && p.compute == compute && p.rows == t.rows && p.cols == t.cols;
  });
}

bool known(const DeviceRates& rates, Compute compute, const Sizes& s) {
  return std::any_of(rates.layers.begin(), rates.layers.end(), [&](const LayerTimes& l) {
    return l.compute == compute && l.hidden_size == s.hidden && l.n_heads == s.heads && l.n_kv_heads == s.kv_heads &&
           l.head_dim == s.head_dim && l.ffn_size == s.ffn;
  });
}

std::vector<TensorSpec> missing_products(const Graph& g, Compute compute, const DeviceRates& rates) {
  std::vector<TensorSpec> missing;
  for (const Op& op : g.ops)
    for (const TensorId id : matrices(op)) {
      const TensorSpec& t = g.tensor(id);
      const bool listed = std::any_of(missing.begin(), missing.end(), [&](const TensorSpec& m) {
        return m.dtype == t.dtype && m.rows == t.rows && m.cols == t.cols;
      });
      if (t.experts == 1 && !listed && !known(rates, compute, t)) missing.push_back(t);
    }
  return missing;
}

// Rows of the tiles in which a matrix is computed: of 8 MiB, as the weight map cuts it.
uint32_t tile_rows(const TensorSpec& t) {
  const uint64_t most = std::max<uint64_t>(16, 8 * MiB / t.row_size() / 16 * 16);
  return static_cast<uint32_t>(div_up(t.rows, div_up(t.rows, most)));
}

Result<ProductTimes> time_matrix(KernelTimer& timer, const TensorSpec& t, Compute compute) {
  ProductTimes times{t.dtype, compute, t.rows, t.cols, many_tokens, 0, 0};
  const uint32_t rows = tile_rows(t);
  const double tiles = static_cast<double>(t.rows) / rows;
  SLUICE_ASSIGN_OR_RETURN(const double one, timer.time_product(t.dtype, compute, rows, t.cols, 1));
  SLUICE_ASSIGN_OR_RETURN(const double many, timer.time_product(t.dtype, compute, rows, t.cols, many_tokens));
  times.one_us = one * tiles * 1e6;
  times.many_us = many * tiles * 1e6;
  return times;
}

// The memory of a layer's activations and its KV, and the calls on them.
class LayerTimer {
 public:
  LayerTimer(KernelTimer& timer, const Sizes& sizes, Compute compute)
      : timer_(timer), s_(sizes), type_(compute == Compute::f32 ? KvType::f32 : KvType::f16), compute_(compute) {
    std::byte* at = timer.scratch();
    const auto take = [&](uint64_t bytes) {
      std::byte* begin = at;
      at += align_up(bytes, 64);
      return begin;
    };
    const uint64_t widest = std::max({s_.hidden, s_.q(), s_.ffn});
    for (float*& x : x_) x = reinterpret_cast<float*>(take(many_tokens * widest * sizeof(float)));
    acts_ = take(many_tokens * widest * sizeof(float) + 64 * KiB);
    table_ = reinterpret_cast<float*>(take(many_tokens * s_.head_dim * sizeof(float)));
    const uint64_t page = page_tokens * s_.kv() * kv_bytes(type_);
    for (uint32_t i = 0; i < more_pages + 1; ++i) {  // kv_append writes to them
      k_pages_.push_back(take(page));
      v_pages_.push_back(take(page));
    }
  }
  static uint64_t bytes(const Sizes& s) {
    const uint64_t widest = std::max({s.hidden, s.q(), s.ffn});
    return 4 * many_tokens * widest * sizeof(float) + MiB +
           2ull * (more_pages + 1) * (page_tokens * s.kv() * sizeof(float) + 64);
  }

  // What a layer does beside its products and attention, as offload/plan/emit.cc enqueues it.
  Result<double> time_rest(uint32_t n) {
    place(n, 0);
    return timer_.time([this, n](Queue& queue) { launch_rest(queue, n); });
  }

  // Attention of n tokens behind `pages` pages, each call over pages of its own: those of a layer come
  // from memory, since all the weights were read since its last step. So all of the memory is gone through.
  Result<double> time_attention(uint32_t n, uint32_t pages) {
    place(n, pages * page_tokens);
    const uint64_t page = page_tokens * s_.kv() * kv_bytes(type_);
    const auto n_layers = std::clamp<uint64_t>(timer_.weights_bytes() / (2 * span_.n_pages * page), 30, 4096);
    std::vector<std::vector<std::byte*>> lists(2 * n_layers);
    std::vector<KvSpan> spans(n_layers, span_);
    for (auto& list : lists)
      for (uint32_t i = 0; i < span_.n_pages; ++i) list.push_back(timer_.next_page(page));
    for (uint64_t i = 0; i < n_layers; ++i) {
      spans[i].k_pages = lists[2 * i].data();
      spans[i].v_pages = lists[2 * i + 1].data();
    }
    uint64_t next = 0;
    return timer_.time([&](Queue& queue) {
      queue.launch(AttentionCall{x_[0], tokens_.data(), &spans[next++ % n_layers], n, s_.heads, s_.kv_heads,
                                 s_.head_dim, page_tokens, type_, 0.1f, 0, 0, false, true, true, nullptr, x_[1]});
    });
  }

 private:
  void place(uint32_t n, uint32_t before) {
    span_ = {k_pages_.data(), v_pages_.data(), 0, static_cast<uint32_t>(div_up(before + n, page_tokens)), before};
    tokens_.clear();
    for (uint32_t i = 0; i < n; ++i) tokens_.push_back({0, before + i, 0});
  }

  void quantize(Queue& queue, const float* x, uint32_t n, uint32_t cols) {
    const ActFormat format = timer_.device().act_format(DType::q8_0, compute_, n > plan::decode_tokens);
    if (format != ActFormat::f32) queue.launch(QuantizeCall{x, format, n, cols, acts_});
  }

  void launch_rest(Queue& queue, uint32_t n) {
    for (int i = 0; i < 2; ++i) {
      queue.launch(RmsNormCall{x_[0], nullptr, 1e-5f, n, s_.hidden, x_[1]});
      quantize(queue, x_[1], n, s_.hidden);
    }
    queue.launch(RopeCall{x_[0], table_, n, s_.heads, s_.head_dim, s_.head_dim, true});
    queue.launch(RopeCall{x_[1], table_, n, s_.kv_heads, s_.head_dim, s_.head_dim, true});
    queue.launch(KvAppendCall{x_[0], x_[1], tokens_.data(), &span_, n, s_.kv_heads, s_.head_dim, page_tokens, type_});
    quantize(queue, x_[0], n, s_.q());
    if (s_.ffn == 0) return;
    queue.launch(GatedActCall{x_[0], x_[1], Activation::silu, n, s_.ffn, x_[2]});
    quantize(queue, x_[2], n, s_.ffn);
  }

  KernelTimer& timer_;
  const Sizes s_;
  const KvType type_;
  const Compute compute_;
  float* x_[3] = {};
  std::byte* acts_ = nullptr;
  float* table_ = nullptr;
  std::vector<std::byte*> k_pages_, v_pages_;
  std::vector<TokenSlot> tokens_;
  KvSpan span_{};
};

Result<LayerTimes> time_layer(KernelTimer& timer, const Sizes& s, Compute compute) {
  LayerTimer layer(timer, s, compute);
  LayerTimes t{compute, s.hidden, s.heads, s.kv_heads, s.head_dim, s.ffn, many_tokens, 0, 0, 0, 0, 0};
  SLUICE_ASSIGN_OR_RETURN(const double one, layer.time_rest(1));
  SLUICE_ASSIGN_OR_RETURN(const double many, layer.time_rest(many_tokens));
  SLUICE_ASSIGN_OR_RETURN(const double shallow, layer.time_attention(1, few_pages));
  SLUICE_ASSIGN_OR_RETURN(const double deep, layer.time_attention(1, more_pages));
  SLUICE_ASSIGN_OR_RETURN(const double wide, layer.time_attention(many_tokens, more_pages - 1));
  const double cell = std::max(0.0, (deep - shallow) / ((more_pages - few_pages) * page_tokens));
  const double pairs = many_tokens * ((more_pages - 1) * page_tokens + (many_tokens + 1) / 2.0);
  t.one_us = one * 1e6;
  t.many_us = many * 1e6;
  t.attention_us = std::max(0.0, shallow - cell * few_pages * page_tokens) * 1e6;
  t.cell_ns = cell * 1e9;
  t.pair_ns = wide / pairs * 1e9;
  return t;
}

}  // namespace

Result<bool> measure_model(const Graph& graph, Compute compute, uint64_t weights, cpu::CpuDevice& device,
                           DeviceRates& rates) {
  const std::vector<TensorSpec> missing = missing_products(graph, compute, rates);
  const Sizes sizes = sizes_of(graph);
  if (missing.empty() && known(rates, compute, sizes)) return false;
  uint64_t scratch = LayerTimer::bytes(sizes);
  for (const TensorSpec& t : missing) {
    scratch = std::max(scratch, product_scratch(tile_rows(t), t.cols, many_tokens));
    weights = std::max(weights, tile_rows(t) * t.row_size());
  }
  SLUICE_ASSIGN_OR_RETURN(KernelTimer timer, KernelTimer::create(device, weights, scratch));
  for (const TensorSpec& t : missing) {
    SLUICE_ASSIGN_OR_RETURN(const ProductTimes times, time_matrix(timer, t, compute));
    rates.products.push_back(times);
  }
  if (!known(rates, compute, sizes)) {
    SLUICE_ASSIGN_OR_RETURN(const LayerTimes times, time_layer(timer, sizes, compute));
    rates.layers.push_back(times);
  }
  return true;
}

}  // namespace sluice::engine
