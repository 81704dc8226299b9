#include "offload/plan/cost_model.h"

#include <algorithm>

namespace sluice::plan {
namespace {

double rate_of(const std::map<DType, double>& rates, DType type, double otherwise) {
  const auto at = rates.find(type);
  return at != rates.end() && at->second > 0 ? at->second : otherwise;
}

// Between the times of one token and of `many`, by whole shares; beyond `many`, in proportion.
double between(double one_us, double many_us, uint32_t many, double n) {
  if (n <= 1 || many <= 1) return one_us;
  if (n >= many) return std::max(one_us, many_us * n / many);
  return one_us + std::max(0.0, many_us - one_us) * (n - 1) / (many - 1);
}

class StepModel {
 public:
  StepModel(const Graph& g, const DeviceRates& device, const Plan& plan, uint32_t n_tokens, uint32_t depth)
      : g_(g), d_(device), plan_(plan), n_(n_tokens), depth_(depth), f32_(plan.numerics.compute == Compute::f32) {}

  double seconds() {
    const LayerTimes* layer = layer_times();
    for (const Op& op : g_.ops) {
      for (TensorId id : matrices(op)) add_product(g_.tensor(id), std::holds_alternative<HeadOp>(op) ? 1 : n_);
      if (!std::holds_alternative<AttentionOp>(op)) continue;
      if (layer != nullptr) add_layer(*layer);
      else add_unmeasured_layer();
    }
    return seconds_;
  }

 private:
  const LayerTimes* layer_times() const {
    for (const LayerTimes& l : d_.layers)
      if (l.compute == plan_.numerics.compute && l.hidden_size == g_.hidden_size && l.n_heads == g_.n_heads &&
          l.n_kv_heads == g_.n_kv_heads && l.head_dim == g_.head_dim)
        return &l;
    return nullptr;
  }
  const ProductTimes* product_times(const TensorSpec& t) const {
    for (const ProductTimes& p : d_.products)
      if (p.dtype == t.dtype && p.compute == plan_.numerics.compute && p.rows == t.rows && p.cols == t.cols) return &p;
    return nullptr;
  }

  void add_product(const TensorSpec& t, uint32_t n) {
    if (const ProductTimes* p = product_times(t); p != nullptr && t.experts == 1) {
      seconds_ += between(p->one_us, p->many_us, p->tokens, n) * 1e-6;
      return;
    }
    // A product reads its weights once at the rate of one token, and does its arithmetic at the rate of
    // many; whichever takes longer.
    const double gb_s = rate_of(f32_ ? d_.matvec_f32_gb_s : d_.matvec_gb_s, t.dtype, d_.memory_gb_s);
    const double gflops = rate_of(f32_ ? d_.matmul_f32_gflops : d_.matmul_gflops, t.dtype, 10);
    const double one = static_cast<double>(t.extent.bytes) / (gb_s * 1e9);
    const double flops = 2.0 * n * t.rows * t.cols;
    seconds_ += (n == 1 ? one : std::max(one, flops / (gflops * 1e9))) + d_.call_us * 1e-6;
  }

  // Tokens held that a token of the step sees, its like in the step included.
  double cells() const { return depth_ + (n_ + 1) / 2.0; }

  void add_layer(const LayerTimes& l) {
    const double rest = between(l.one_us, l.many_us, l.tokens, n_) * 1e-6;
    const double attention =
        n_ == 1 ? l.attention_us * 1e-6 + cells() * l.cell_ns * 1e-9 : n_ * cells() * l.pair_ns * 1e-9;
    seconds_ += rest + attention;
  }
  void add_unmeasured_layer() {
    constexpr double calls = 13;  // norms, rotations, activations and the like, and attention
    const double kv = 2 * cells() * static_cast<double>(g_.kv_values() * kv_bytes(plan_.numerics.kv_type));
    const double flops = 4.0 * n_ * cells() * g_.n_heads * g_.head_dim;
    const double gflops = rate_of(d_.matmul_f32_gflops, DType::f32, 10);
    seconds_ += std::max(kv / (d_.memory_gb_s * 1e9), flops / (gflops * 1e9)) + calls * d_.call_us * 1e-6;
  }

  const Graph& g_;
  const DeviceRates& d_;
  const Plan& plan_;
  const uint32_t n_, depth_;
  const bool f32_;
  double seconds_ = 0;
};

// Bytes of KV pages beyond those that are kept, read in every step.
double spilled_kv_bytes(const Graph& g, const Plan& plan, uint32_t depth) {
  const Holding& host = plan.host();
  if (host.kv_group_pages == 0) return 0;
  const double pages = 2.0 * g.n_layers * (depth / plan.numerics.page_tokens);
  return std::max(0.0, pages - host.kv_kept_pages) * static_cast<double>(plan.movement.page_slot_bytes);
}

}  // namespace

// While both run each is slower than alone; what is left of the longer one goes on alone.
double StepCost::seconds() const {
  const double compute = compute_s * compute_slowdown, disk = disk_s * disk_slowdown;
  if (compute <= disk) return compute + disk_s - compute / disk_slowdown;
  return disk + compute_s - disk / compute_slowdown;
}

StepCost step_cost(const Graph& graph, const Machine& machine, const Plan& plan, uint32_t n_tokens, uint32_t depth) {
  StepCost cost;
  const DeviceRates* device = machine.device(plan.numerics.sites.front());
  const TierRates* disk = machine.tier("disk");
  if (device == nullptr) return cost;
  cost.compute_s = StepModel(graph, *device, plan, n_tokens, depth).seconds();
  if (disk != nullptr && disk->read_gb_s > 0) {
    const double bytes =
        static_cast<double>(traffic(graph, plan, n_tokens > 1).disk_bytes) + spilled_kv_bytes(graph, plan, depth);
    cost.disk_s = bytes / (disk->read_gb_s * 1e9);
    cost.compute_slowdown = 1 / disk->compute_beside;
    if (disk->read_beside_gb_s > 0) cost.disk_slowdown = std::max(1.0, disk->read_gb_s / disk->read_beside_gb_s);
  }
  return cost;
}

Prediction predict(const Graph& graph, const Machine& machine, const Plan& plan) {
  Prediction p;
  const StepCost decode = step_cost(graph, machine, plan, 1, std::min(plan.context / 2, 256u));
  if (decode.seconds() <= 0) return p;
  p.decode_tok_s = 1 / decode.seconds();
  p.compute_s = decode.compute_s;
  p.disk_s = decode.disk_s;
  p.bottleneck = decode.disk_s * decode.disk_slowdown > decode.compute_s * decode.compute_slowdown ? "disk" : "memory";

  p.prefill_tokens = std::max(1u, std::min(plan.context / 2, 512u));
  double seconds = 0;
  for (uint32_t done = 0; done < p.prefill_tokens; done += plan.workspace.tokens)
    seconds +=
        step_cost(graph, machine, plan, std::min(plan.workspace.tokens, p.prefill_tokens - done), done).seconds();
  p.prefill_tok_s = p.prefill_tokens / seconds;
  return p;
}

}  // namespace sluice::plan
