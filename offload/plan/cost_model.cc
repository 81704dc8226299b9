#include "offload/plan/cost_model.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace sluice::plan {
namespace {

constexpr double achieved = 0.9;       // of a device's peak, where its kernels were not measured
constexpr double flops_per_byte = 50;  // of an accelerator of which nothing is known but its memory
// Of an accelerator's memory rate, what norms, quantizing, activations of many tokens reach on an H200.
constexpr double small_part = 0.5;
constexpr double attention_part = 1 / 6.0;  // of what products of many tokens do: H200, 100 to 146 of 816 TFLOP/s

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

// The kernels of ops at one device.
class OpModel {
 public:
  OpModel(const Graph& g, const DeviceRates& device, const Plan& plan, bool accelerator, uint32_t n_tokens,
          uint32_t depth)
      : g_(g),
        d_(device),
        plan_(plan),
        n_(n_tokens),
        depth_(depth),
        f32_(plan.numerics.compute == Compute::f32),
        accelerator_(accelerator),
        recorded_(accelerator && d_.recorded_us > 0 && is_recorded()),
        layer_(layer_times()) {}

  OpCost cost(const Op& op) {
    cost_ = {};
    const auto* ffn = std::get_if<FfnOp>(&op);
    const TensorSpec* last = nullptr;
    for (TensorId id : matrices(op)) {
      const TensorSpec& t = g_.tensor(id);
      // Products of the same activations share a call, if their kernel is the same (gpu/kernels/joint.h).
      const bool joined =
          few_tokens_on_accelerator() && last != nullptr && last->dtype == t.dtype && last->cols == t.cols;
      const double before = cost_.kernels_s;
      add_product(id, std::holds_alternative<HeadOp>(op) ? 1 : n_, joined ? 0 : calls(id));
      if (ffn != nullptr && id != ffn->down) cost_.divisible_s += cost_.kernels_s - before;
      last = &t;
    }
    if (ffn != nullptr) cost_.beside_rows_s = 2 * call_us() * 1e-6;  // the norm, the activation
    if (layer_ != nullptr) add_layer(op, *layer_);
    else add_unmeasured(op);
    if (std::holds_alternative<AttentionOp>(op)) cost_.divisible_s = cost_.kernels_s;
    return cost_;
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

  void add(double seconds, bool memory_bound) {
    cost_.kernels_s += seconds;
    if (memory_bound) cost_.memory_s += seconds;
  }

  // Whether the step is one that is replayed whole: one token, all of it at this accelerator, where its weights stay.
  bool is_recorded() const {
    const Placement& decode = plan_.numerics.decode;
    const uint8_t site = decode.op_site.front();
    const bool all_near = plan_.numerics.near_share(depth_, n_) == 1;
    return n_ == 1 && all_near && site != host_site && decode.is_all_at(site) &&
           streamed_blocks(g_, plan_, false, site).empty();
  }

  double call_us() const { return recorded_ ? d_.recorded_us : d_.call_us; }

  // Products with many tokens of a type that was not measured are made of half-precision tiles.
  double default_gflops() const {
    if (!accelerator_) return 10;
    const double half = rate_of(d_.matmul_gflops, DType::f16, d_.memory_gb_s * flops_per_byte);
    return rate_of(d_.matmul_gflops, DType::bf16, half);
  }
  double default_gb_s() const { return d_.memory_gb_s * achieved; }
  double attention_gflops() const {
    if (!accelerator_) return rate_of(d_.matmul_f32_gflops, DType::f32, 10);
    return d_.more_gflops > 0 ? d_.more_gflops * attention_part : default_gflops();
  }
  // The host's kernels are called once for a product and share its tiles; an accelerator's once for a tile, or for up
  // to eight of them if the tokens are few. Those that stream break the row.
  double calls(TensorId id) const {
    const auto tiles = static_cast<double>(plan_.movement.weights.of(id).size());
    if (few_tokens_on_accelerator()) return std::ceil(tiles / 4);
    return accelerator_ ? tiles : 1;
  }
  bool few_tokens_on_accelerator() const { return accelerator_ && n_ <= decode_tokens; }

  void add_product(TensorId id, uint32_t n, double n_calls) {
    const TensorSpec& t = g_.tensor(id);
    if (const ProductTimes* p = product_times(t); p != nullptr && t.experts == 1) {
      const uint32_t timed = d_.more_gflops > 0 && !f32_ ? std::min(n, p->tokens) : n;
      const double more = n > timed ? 2.0 * t.rows * t.cols * (n - timed) / d_.more_gflops * 1e-9 : 0;
      add(between(p->one_us, p->many_us, p->tokens, timed) * 1e-6 + more, n <= decode_tokens);
      return;
    }
    // A product reads its weights once at the rate of one token, and does its arithmetic at the rate of
    // many; whichever takes longer.
    const double gb_s = rate_of(f32_ ? d_.matvec_f32_gb_s : d_.matvec_gb_s, t.dtype, default_gb_s());
    const double gflops = rate_of(f32_ ? d_.matmul_f32_gflops : d_.matmul_gflops, t.dtype, default_gflops());
    const double one = static_cast<double>(t.extent.bytes) / (gb_s * 1e9);
    const double arithmetic = n == 1 ? 0 : 2.0 * t.rows * t.cols * tokens_over(n, gflops) * 1e-9;
    add(std::max(one, arithmetic) + n_calls * call_us() * 1e-6, one >= arithmetic);
  }

  // n tokens by the rate at which each goes.
  double tokens_over(uint32_t n, double gflops) const {
    const uint32_t many = d_.more_gflops > 0 && !f32_ ? std::min(n, d_.many_tokens) : n;
    return many / gflops + (n > many ? (n - many) / d_.more_gflops : 0);
  }

  // Tokens held that a token of the step sees, its like in the step included.
  double cells() const { return depth_ + (n_ + 1) / 2.0; }

  // What a layer does beside products and attention is shared by its three sub-layers.
  void add_layer(const Op& op, const LayerTimes& l) {
    if (std::holds_alternative<AttentionOp>(op)) {
      add(n_ == 1 ? l.attention_us * 1e-6 + cells() * l.cell_ns * 1e-9 : n_ * cells() * l.pair_ns * 1e-9, n_ == 1);
      return;
    }
    const bool sub_layer = std::holds_alternative<AttentionInOp>(op) || std::holds_alternative<AttentionOutOp>(op) ||
                           std::holds_alternative<FfnOp>(op) || std::holds_alternative<RouteOp>(op);
    if (sub_layer) add(between(l.one_us, l.many_us, l.tokens, n_) * 1e-6 / 3, true);
  }

  void add_calls(double n) { add(n * call_us() * 1e-6, true); }

  // What the small kernels of a sub-layer read and write, per token of a prompt: the host's keep it in its caches.
  void add_small(double floats, double quantized) {
    if (!accelerator_ || n_ <= decode_tokens) return;
    constexpr double to_quantize = sizeof(float) + 1.0;
    const double bytes = n_ * (floats * sizeof(float) + (f32_ ? 0 : quantized * to_quantize));
    add(bytes / (d_.memory_gb_s * small_part * 1e9), true);
  }

  // Norms, rotations, activations and the like: 13 calls in a layer, some of which share one where they are recorded.
  void add_unmeasured(const Op& op) {
    const double hidden = g_.hidden_size, queries = double{1} * g_.n_heads * g_.head_dim;
    if (std::holds_alternative<AttentionInOp>(op)) {
      const double kv = double{1} * g_.n_kv_heads * g_.head_dim;
      add_small(2 * hidden + 2 * (queries + kv) + 3 * kv, hidden);  // norm, rotations, append
      return add_calls(recorded_ ? 2 : 6);
    }
    if (std::holds_alternative<AttentionOutOp>(op)) {
      add_small(0, queries);
      return add_calls(recorded_ ? 1 : 2);
    }
    if (const auto* ffn = std::get_if<FfnOp>(&op)) {
      const double width = g_.tensor(ffn->gate).rows;
      add_small(2 * hidden + 3 * width, hidden + width);  // norm, activation
      return add_calls(recorded_ ? 2 : 3);
    }
    if (std::holds_alternative<RouteOp>(op)) return add_calls(recorded_ ? 2 : 3);
    if (!std::holds_alternative<AttentionOp>(op)) return;
    const double kv = 2 * cells() * static_cast<double>(g_.kv_values() * kv_bytes(plan_.numerics.kv_type));
    const double flops = 4.0 * n_ * cells() * g_.n_heads * g_.head_dim;
    const double read = kv / (default_gb_s() * 1e9), arithmetic = flops / (attention_gflops() * 1e9);
    add(std::max(read, arithmetic), read >= arithmetic);
    add_calls(2);
  }

  const Graph& g_;
  const DeviceRates& d_;
  const Plan& plan_;
  const uint32_t n_, depth_;
  const bool f32_, accelerator_, recorded_;
  const LayerTimes* layer_;
  OpCost cost_;
};

// Bytes of KV pages beyond those that the host keeps, read in every step.
double spilled_kv_bytes(const Plan& plan, uint32_t depth) {
  const Holding& host = plan.host();
  if (host.kv_group_pages == 0) return 0;
  const std::vector<uint8_t>& at = plan.numerics.kv_site;
  const auto layers = static_cast<double>(std::count(at.begin(), at.end(), host_site));
  const uint32_t held = depth / plan.numerics.page_tokens, far = held - std::min(held, plan.numerics.near_pages);
  const double pages = 2.0 * (layers * held + (static_cast<double>(at.size()) - layers) * far);
  return std::max(0.0, pages - host.kv_kept_pages) * static_cast<double>(plan.movement.page_slot_bytes);
}

const LinkRates* find_link(const Machine& machine, std::string_view from, std::string_view to) {
  for (const LinkRates& link : machine.links)
    if (link.from == from && link.to == to) return &link;
  return nullptr;
}

// The link and the ops in turn: how much has arrived that is not used yet.
class Walk {
 public:
  Walk(const LinkLane& lane, bool streams)
      : l_(lane),
        streams_(streams),
        beside_bytes_s_(lane.bytes_s * lane.beside),
        byte_s_(1 / std::max(lane.bytes_s, 1.0)),
        beside_byte_s_(1 / std::max(beside_bytes_s_, 1.0)),
        host_slowdown_(1 / lane.host_beside) {}

  StepCost pass(std::span<const OpCost> ops) {
    cost_ = {};
    for (const OpCost& op : ops) {
      if (op.hand_over_s > 0) run(op.hand_over_s, false);
      cost_.hand_over_s += op.hand_over_s;
      if (op.host_rows_s > 0) at_both(op);
      else if (op.site == host_site) at_host(op.kernels_s, op.memory_s);
      else at_accelerator(op.kernels_s, op.memory_s, op.link_bytes);
    }
    return cost_;
  }

 private:
  // Time passes; the link fills what room there is.
  void run(double seconds, bool beside_host) {
    cost_.compute_s += seconds;
    if (!streams_) return;
    const double filling = std::min(seconds, (l_.ahead_bytes - arrived_) * (beside_host ? beside_byte_s_ : byte_s_));
    cost_.link_s += filling;
    arrived_ = std::min(l_.ahead_bytes, arrived_ + (beside_host ? beside_bytes_s_ : l_.bytes_s) * filling);
  }

  // Of the host's kernels, which are slower while the link runs: until that has filled `room`.
  double host_seconds(double kernels_s, double room) const {
    if (!streams_) return kernels_s;
    const double beside = std::min(room * beside_byte_s_, kernels_s * host_slowdown_);
    return beside + std::max(0.0, kernels_s - beside * l_.host_beside);
  }

  void at_host(double kernels_s, double memory_s) {
    const double took = host_seconds(kernels_s, l_.ahead_bytes - arrived_);
    cost_.host_s += took;
    cost_.host_memory_s += kernels_s > 0 ? took * memory_s / kernels_s : 0;
    run(took, true);
  }

  // What has not arrived is waited for, piece by piece.
  void at_accelerator(double kernels_s, double memory_s, double link_bytes) {
    const double missing = std::max(0.0, link_bytes - arrived_) * byte_s_;
    const double took = std::max(kernels_s, missing);
    cost_.device_s += kernels_s;
    cost_.device_memory_s += memory_s;
    cost_.wait_s += took - kernels_s;
    cost_.compute_s += took;
    if (streams_) arrive(took, l_.bytes_s * took, link_bytes);
  }

  // Rows at both sites, of which the accelerator's, and what it has of the op beside, may have to arrive; then the
  // rest.
  void at_both(const OpCost& op) {
    const double host = host_seconds(op.host_rows_s, l_.ahead_bytes - arrived_ + op.link_bytes);
    const double rate = beside_bytes_s_, missing = std::max(0.0, op.link_bytes - arrived_);
    const double waited = missing <= rate * host ? missing * beside_byte_s_ : host + (missing - rate * host) * byte_s_;
    const double took = std::max({host, op.device_rows_s, waited});
    cost_.host_s += host;
    cost_.host_memory_s += host;
    cost_.device_s += op.device_rows_s;
    cost_.device_memory_s += op.device_rows_s;
    cost_.wait_s += took - std::max(host, op.device_rows_s);
    cost_.compute_s += took;
    if (streams_) arrive(took, rate * host + l_.bytes_s * (took - host), op.link_bytes);
    if (op.site == host_site) at_host(op.kernels_s, op.memory_s);
    else at_accelerator(op.kernels_s, op.memory_s, 0);
  }

  // In `seconds` the link brings so many bytes at most, while others are used.
  void arrive(double seconds, double bytes, double used) {
    const double all = arrived_ + bytes - used;
    arrived_ = std::clamp(all, 0.0, l_.ahead_bytes);
    cost_.link_s += seconds - std::max(0.0, all - l_.ahead_bytes) * byte_s_;
  }

  const LinkLane& l_;
  const bool streams_;
  const double beside_bytes_s_, byte_s_, beside_byte_s_, host_slowdown_;  // rates beside the host, and inverted ones
  double arrived_ = 0;
  StepCost cost_;
};

uint32_t depth_of(uint32_t context, uint32_t depth) {
  return depth != 0 ? std::min(depth, context - 1) : std::min(context / 2, 256u);
}

// What is busy longest, and for what part of the token.
void find_bottleneck(const StepCost& cost, bool accelerator, Prediction& p) {
  const double total = cost.seconds();
  const double arithmetic = cost.host_s - cost.host_memory_s + cost.device_s - cost.device_memory_s;
  const std::array<std::pair<const char*, double>, 6> busy = {{
      {"RAM", cost.host_memory_s},
      {"VRAM", cost.device_memory_s},
      {"compute", arithmetic},
      {"hand-overs", cost.hand_over_s},
      {"PCIe", cost.link_s},
      {"disk", cost.disk_s * cost.disk_slowdown},
  }};
  const auto most = std::max_element(busy.begin(), busy.end(), [](auto& a, auto& b) { return a.second < b.second; });
  p.bottleneck = most->first;
  p.bottleneck_share = std::min(1.0, most->second / total);
  if (accelerator) return;
  const bool disk = cost.disk_s * cost.disk_slowdown > cost.compute_s * cost.compute_slowdown;
  p.bottleneck = disk ? "disk" : "RAM";
  p.bottleneck_share = std::min(1.0, (disk ? cost.disk_s * cost.disk_slowdown : cost.compute_s) / total);
}

// The ops of a pass where the plan has them.
std::vector<OpCost> placed_ops(const Graph& g, const Machine& machine, const Plan& plan, const LinkLane& lane,
                               uint32_t n_tokens, uint32_t depth, bool prompt) {
  const Placement& placement = plan.numerics.placement(prompt);
  std::vector<std::vector<OpCost>> at;
  for (uint8_t site = 0; site < plan.numerics.sites.size(); ++site)
    at.push_back(op_costs(g, machine, plan, site, n_tokens, depth));
  std::vector<OpCost> ops;
  const double near_share = prompt ? 1 : plan.numerics.near_share(depth, n_tokens);
  for (size_t i = 0; i < g.ops.size(); ++i) ops.push_back(placed_cost(g, placement, i, at, near_share));
  if (at.size() == 1) return ops;
  add_hand_overs(g, placement, lane, n_tokens, near_share < 1, ops);
  if (prompt) add_staged(g, plan, placement, lane, plan.numerics.near_tokens(), n_tokens, depth, ops);
  for (uint8_t site = 1; site < at.size(); ++site)
    for (const uint32_t block : streamed_blocks(g, plan, prompt, site, plan.movement.is_large(n_tokens))) {
      const WeightBlock& b = plan.movement.weights.blocks[block];
      ops[b.first_op].link_bytes += static_cast<double>(b.bytes);
    }
  return ops;
}

LinkLane lane_of(const Machine& machine, const Plan& plan) {
  LinkLane lane;
  if (plan.numerics.sites.size() < 2) return lane;
  lane = link_lane(machine, plan.numerics.sites[1]);
  lane.ahead_bytes = static_cast<double>(plan.movement.sites[1].ahead_bytes);
  return lane;
}

}  // namespace

// While both run each is slower than alone; what is left of the longer one goes on alone.
double StepCost::seconds() const {
  const double compute = compute_s * compute_slowdown, disk = disk_s * disk_slowdown;
  if (compute <= disk) return compute + disk_s - compute / disk_slowdown;
  return disk + compute_s - disk / compute_slowdown;
}

OpCost split_cost(const OpCost& home, const OpCost& other, double share) {
  OpCost cost = home;
  const double rows = home.divisible_s * share;
  cost.kernels_s -= home.divisible_s;
  cost.memory_s = std::max(0.0, cost.memory_s - home.divisible_s);
  (home.site == host_site ? cost.host_rows_s : cost.device_rows_s) = rows;
  (home.site == host_site ? cost.device_rows_s : cost.host_rows_s) =
      other.divisible_s * (1 - share) + other.beside_rows_s;
  return cost;
}

OpCost placed_cost(const Graph& graph, const Placement& placement, size_t op, std::span<const std::vector<OpCost>> at,
                   double near_share) {
  const OpCost& home = at[placement.op_site[op]][op];
  if (near_share < 1 && home.site != host_site && std::holds_alternative<AttentionOp>(graph.ops[op]))
    return split_cost(home, at[host_site][op], near_share);
  const Split split = placement.split(op);
  if (split.row == 0) return home;
  return split_cost(home, at[split.site][op], split.row / static_cast<double>(divided_rows(graph, op)));
}

std::vector<OpCost> op_costs(const Graph& graph, const Machine& machine, const Plan& plan, uint8_t site,
                             uint32_t n_tokens, uint32_t depth) {
  std::vector<OpCost> costs(graph.ops.size());
  const DeviceRates* device = machine.device(plan.numerics.sites[site]);
  if (device == nullptr) return costs;
  OpModel model(graph, *device, plan, site != host_site, n_tokens, depth);
  for (size_t i = 0; i < costs.size(); ++i) {
    costs[i] = model.cost(graph.ops[i]);
    costs[i].site = site;
  }
  return costs;
}

LinkLane link_lane(const Machine& machine, const std::string& device) {
  LinkLane lane;
  const LinkRates *up = find_link(machine, "host", device), *down = find_link(machine, device, "host");
  if (up == nullptr || up->gb_s <= 0) return lane;
  lane.bytes_s = up->gb_s * 1e9;
  if (up->beside_gb_s > 0) lane.beside = std::min(1.0, up->beside_gb_s / up->gb_s);
  lane.host_beside = std::clamp(up->compute_beside, 0.01, 1.0);
  lane.up_bytes_s = lane.down_bytes_s = lane.bytes_s;
  lane.latency_s = up->latency_us * 1e-6;
  if (down != nullptr && down->gb_s > 0) {
    lane.down_bytes_s = down->gb_s * 1e9;
    lane.latency_s += down->latency_us * 1e-6;
  }
  if (const DeviceRates* rates = machine.device(device); rates != nullptr) lane.call_s = rates->call_us * 1e-6;
  return lane;
}

// Values go one by one, and are waited for once. Logits that an accelerator computes come to the host, as if all were
// wanted.
void add_hand_overs(const Graph& graph, const Placement& placement, const LinkLane& lane, uint32_t n_tokens, bool far,
                    std::vector<OpCost>& ops) {
  const auto seconds = [&](uint8_t to, double floats) {
    return lane.call_s + floats * sizeof(float) / (to == host_site ? lane.down_bytes_s : lane.up_bytes_s);
  };
  std::pair<uint32_t, uint8_t> last = {UINT32_MAX, host_site};
  for (const HandOver& h : hand_overs(graph, placement, far)) {
    if (std::exchange(last, {h.op, h.to}) != std::pair(h.op, h.to)) ops[h.op].hand_over_s += lane.latency_s;
    ops[h.op].hand_over_s += seconds(h.to, static_cast<double>(n_tokens) * h.width);
  }
  if (placement.op_site.back() != host_site)
    ops.back().hand_over_s += lane.latency_s + seconds(host_site, graph.n_vocab);
}

void add_staged(const Graph& graph, const Plan& plan, const Placement& placement, const LinkLane& lane,
                uint64_t near_tokens, uint32_t n_tokens, uint32_t depth, std::vector<OpCost>& ops) {
  const uint64_t end = uint64_t{depth} + n_tokens;
  if (end <= near_tokens) return;
  const double values = 2.0 * static_cast<double>(graph.kv_values());
  const double far = static_cast<double>(end - near_tokens), made = std::min<double>(far, n_tokens);
  const double up = far * values * static_cast<double>(kv_bytes(plan.numerics.kv_type)) / lane.up_bytes_s;
  const double down = made * values * sizeof(float) / lane.down_bytes_s;
  for (size_t i = 0; i < ops.size(); ++i)
    if (std::holds_alternative<AttentionOp>(graph.ops[i]) && placement.op_site[i] != host_site)
      ops[i].hand_over_s += lane.latency_s + up + down;
}

// The second of two passes: in the first one the link begins with nothing ahead.
StepCost pass_cost(std::span<const OpCost> ops, const LinkLane& lane) {
  const bool streams = std::any_of(ops.begin(), ops.end(), [](const OpCost& op) { return op.link_bytes > 0; });
  Walk walk(lane, streams);
  const StepCost first = walk.pass(ops);
  return streams ? walk.pass(ops) : first;
}

double return_seconds(const Machine& machine, const LinkLane& lane, double bytes, double from_disk) {
  if (bytes <= 0) return 0;
  const TierRates* disk = machine.tier("disk");
  const bool reads = from_disk > 0 && disk != nullptr && disk->read_gb_s > 0;
  return std::max(bytes / lane.bytes_s, reads ? from_disk / (disk->read_gb_s * 1e9) : 0);
}

void add_disk(const Machine& machine, double bytes, StepCost& cost) {
  const TierRates* disk = machine.tier("disk");
  if (disk == nullptr || disk->read_gb_s <= 0) return;
  cost.disk_s = bytes / (disk->read_gb_s * 1e9);
  cost.compute_slowdown = 1 / disk->compute_beside;
  if (disk->read_beside_gb_s > 0) cost.disk_slowdown = std::max(1.0, disk->read_gb_s / disk->read_beside_gb_s);
}

StepCost step_cost(const Graph& graph, const Machine& machine, const Plan& plan, uint32_t n_tokens, uint32_t depth) {
  return step_cost(graph, machine, plan, n_tokens, depth, n_tokens > decode_tokens);
}

StepCost step_cost(const Graph& graph, const Machine& machine, const Plan& plan, uint32_t n_tokens, uint32_t depth,
                   bool prompt) {
  if (machine.device(plan.numerics.sites.front()) == nullptr) return {};
  const LinkLane lane = lane_of(machine, plan);
  StepCost cost = pass_cost(placed_ops(graph, machine, plan, lane, n_tokens, depth, prompt), lane);
  const Traffic moved = traffic(graph, plan, prompt, 0, plan.movement.is_large(n_tokens));
  add_disk(machine, static_cast<double>(moved.disk_bytes) + spilled_kv_bytes(plan, depth), cost);
  return cost;
}

uint32_t short_prompt(const Graph& graph, const Machine& machine, const Plan& plan) {
  const auto seconds = [&](uint32_t n, bool prompt) { return step_cost(graph, machine, plan, n, 0, prompt).seconds(); };
  uint32_t n = 1;
  while (n < most_short_prompt && seconds(n + 1, false) <= seconds(n + 1, true)) ++n;
  return n;
}

double prompt_seconds(const Graph& graph, const Machine& machine, const Plan& plan, uint32_t n_tokens) {
  double seconds = 0;
  const uint32_t step = plan.workspace.tokens;
  for (uint32_t done = 0; done < n_tokens; done += step)
    seconds += step_cost(graph, machine, plan, std::min(step, n_tokens - done), done).seconds();
  return seconds;
}

Prediction predict(const Graph& graph, const Machine& machine, const Plan& plan, uint32_t depth) {
  Prediction p;
  p.decode_depth = depth_of(plan.context, depth);
  const StepCost decode = step_cost(graph, machine, plan, 1, p.decode_depth);
  if (decode.seconds() <= 0) return p;
  p.decode_tok_s = 1 / decode.seconds();
  p.compute_s = decode.compute_s;
  p.disk_s = decode.disk_s;
  find_bottleneck(decode, plan.numerics.sites.size() > 1, p);
  for (const OpCost& op : placed_ops(graph, machine, plan, lane_of(machine, plan), 1, p.decode_depth, false))
    p.op_s.push_back(op.kernels_s + std::max(op.host_rows_s, op.device_rows_s) + op.hand_over_s);

  p.prefill_tokens = std::max(1u, std::min(plan.context / 2, 512u));
  p.prefill_tok_s = p.prefill_tokens / prompt_seconds(graph, machine, plan, p.prefill_tokens);
  for (const uint32_t n : {64u, 512u, 2048u})
    if (n <= plan.context) p.prefill.push_back({n, n / prompt_seconds(graph, machine, plan, n)});
  return p;
}

Request typical_request(uint32_t context, uint32_t depth, uint32_t prompt) {
  const uint32_t half = std::max(1u, context / 2);
  return {prompt != 0 ? std::min(prompt, context) : std::min(4096u, half), std::min(128u, half),
          depth != 0 ? std::min(depth, context - 1) : context / 2};
}

namespace {

double seconds_to_return(const Machine& machine, const Plan& plan) {
  double seconds = 0;
  for (uint8_t site = 1; site < plan.movement.sites.size(); ++site) {
    double bytes = 0, from_disk = 0;
    for (size_t i = 0; i < plan.movement.weights.blocks.size(); ++i) {
      if (!plan.movement.sites[site].lends(i)) continue;
      bytes += static_cast<double>(plan.movement.weights.blocks[i].bytes);
      if (!plan.host().resident[i]) from_disk += static_cast<double>(plan.movement.weights.blocks[i].bytes);
    }
    seconds += return_seconds(machine, link_lane(machine, plan.numerics.sites[site]), bytes, from_disk);
  }
  return seconds;
}

}  // namespace

double request_seconds(const Graph& graph, const Machine& machine, const Plan& plan, uint32_t depth, uint32_t prompt) {
  const Request r = typical_request(plan.context, depth, prompt);
  const double after_prompt =
      plan.movement.is_large(std::min(plan.workspace.tokens, r.prompt)) ? seconds_to_return(machine, plan) : 0;
  return r.answer * step_cost(graph, machine, plan, 1, r.depth).seconds() +
         prompt_seconds(graph, machine, plan, r.prompt) + after_prompt;
}

}  // namespace sluice::plan
