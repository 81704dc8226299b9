#include "offload/plan/cost_model.h"

#include <algorithm>

namespace sluice::plan {
namespace {

double rate_of(const std::map<DType, double>& rates, DType type, double otherwise) {
  const auto at = rates.find(type);
  return at != rates.end() && at->second > 0 ? at->second : otherwise;
}

class StepModel {
 public:
  StepModel(const Graph& g, const DeviceRates& device, const Plan& plan, uint32_t n_tokens, uint32_t depth)
      : g_(g), d_(device), plan_(plan), n_(n_tokens), depth_(depth), f32_(plan.numerics.compute == Compute::f32) {}

  double seconds() {
    for (const Op& op : g_.ops) {
      for (TensorId id : matrices(op)) add_product(id, std::holds_alternative<HeadOp>(op) ? 1 : n_);
      if (std::holds_alternative<AttentionOp>(op)) add_attention();
      calls_ += 4;  // norms, rotations and the like, beside the products
    }
    return seconds_ + calls_ * d_.call_us * 1e-6;
  }

 private:
  // A product reads its weights once at the rate of one token, and does its arithmetic at the rate of
  // many; whichever takes longer.
  void add_product(TensorId id, uint32_t n) {
    const TensorSpec& t = g_.tensor(id);
    const double bytes = static_cast<double>(t.extent.bytes);
    const double flops = 2.0 * n * t.rows * t.cols;
    const double gb_s = rate_of(f32_ ? d_.matvec_f32_gb_s : d_.matvec_gb_s, t.dtype, d_.memory_gb_s);
    const double gflops = rate_of(f32_ ? d_.matmul_f32_gflops : d_.matmul_gflops, t.dtype, 10);
    const double one = bytes / (gb_s * 1e9);
    seconds_ += n == 1 ? one : std::max(one, flops / (gflops * 1e9));
    ++calls_;
  }
  void add_attention() {
    const double cells = depth_ + (n_ + 1) / 2.0;
    const double kv = 2 * cells * static_cast<double>(g_.kv_values() * kv_bytes(plan_.numerics.kv_type));
    const double flops = 4.0 * n_ * cells * g_.n_heads * g_.head_dim;
    const double gflops = rate_of(d_.matmul_f32_gflops, DType::f32, 10);
    seconds_ += std::max(kv / (d_.memory_gb_s * 1e9), flops / (gflops * 1e9));
    ++calls_;
  }

  const Graph& g_;
  const DeviceRates& d_;
  const Plan& plan_;
  const uint32_t n_, depth_;
  const bool f32_;
  double seconds_ = 0;
  double calls_ = 0;
};

// Bytes of KV pages beyond those that are kept, read in every step.
double spilled_kv_bytes(const Graph& g, const Plan& plan, uint32_t depth) {
  const Movement& m = plan.movement;
  if (m.kv_group_pages == 0) return 0;
  const double pages = 2.0 * g.n_layers * (depth / plan.numerics.page_tokens);
  return std::max(0.0, pages - m.kv_kept_pages) * static_cast<double>(m.page_slot_bytes);
}

}  // namespace

double StepCost::seconds() const { return std::max(compute_s, disk_s); }

StepCost step_cost(const Graph& graph, const Machine& machine, const Plan& plan, uint32_t n_tokens, uint32_t depth) {
  StepCost cost;
  const DeviceRates* device = machine.device(plan.numerics.op_device.front());
  const TierRates* disk = machine.tier("disk");
  if (device == nullptr) return cost;
  cost.compute_s = StepModel(graph, *device, plan, n_tokens, depth).seconds();
  if (disk != nullptr && disk->read_gb_s > 0) {
    const double bytes = static_cast<double>(plan.movement.streamed_bytes) + spilled_kv_bytes(graph, plan, depth);
    cost.disk_s = bytes / (disk->read_gb_s * 1e9);
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
  p.bottleneck = decode.disk_s > decode.compute_s ? "disk" : "memory";

  p.prefill_tokens = std::max(1u, std::min(plan.context / 2, 512u));
  double seconds = 0;
  for (uint32_t done = 0; done < p.prefill_tokens; done += plan.workspace.tokens)
    seconds +=
        step_cost(graph, machine, plan, std::min(plan.workspace.tokens, p.prefill_tokens - done), done).seconds();
  p.prefill_tok_s = p.prefill_tokens / seconds;
  return p;
}

}  // namespace sluice::plan
