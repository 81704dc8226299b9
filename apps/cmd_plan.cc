#include <string>

#include "apps/commands.h"
#include "apps/json.h"
#include "apps/output.h"
#include "apps/print.h"
#include "apps/text.h"

namespace sluice::apps {
namespace {

// "attn_q.weight" of "blk.3.attn_q.weight".
std::string name_in_layer(const std::string& tensor) {
  if (!tensor.starts_with("blk.")) return tensor;
  const size_t dot = tensor.find('.', 4);
  return dot == std::string::npos ? tensor : tensor.substr(dot + 1);
}

bool same_placement(const LayerReport& a, const LayerReport& b) {
  if (a.tensors.size() != b.tensors.size()) return false;
  for (size_t i = 0; i < a.tensors.size(); ++i) {
    const PlacementReport &x = a.tensors[i], &y = b.tensors[i];
    if (name_in_layer(x.tensor) != name_in_layer(y.tensor) || x.type != y.type || x.device != y.device ||
        x.bytes_resident != y.bytes_resident || x.bytes_streamed != y.bytes_streamed ||
        x.tiles_resident != y.tiles_resident || x.tiles_streamed != y.tiles_streamed)
      return false;
  }
  return true;
}

void add_layer(Table& table, const std::string& name, const LayerReport& layer) {
  for (size_t i = 0; i < layer.tensors.size(); ++i) {
    const PlacementReport& p = layer.tensors[i];
    table.add({i == 0 ? printable(name) : "", printable(name_in_layer(p.tensor)), p.type, p.device,
               std::to_string(p.tiles_resident), std::to_string(p.tiles_streamed), format_size(p.bytes_resident),
               format_size(p.bytes_streamed)});
  }
}

// A row for each tensor; neighbouring layers that live alike share theirs.
std::string layer_table(const PlanReport& plan) {
  Table table("llllrrrr");
  table.add({"layer", "tensor", "type", "on", "tiles kept", "read", "bytes kept", "read per step"});
  for (size_t i = 0; i < plan.layers.size();) {
    size_t last = i;
    while (last + 1 < plan.layers.size() && same_placement(plan.layers[i], plan.layers[last + 1])) ++last;
    std::string name = plan.layers[i].name;
    if (last != i) name += " to " + plan.layers[last].name + ", each";
    add_layer(table, name, plan.layers[i]);
    i = last + 1;
  }
  return table.to_string();
}

// Where a layer is, in few words: what it does beside its FFN, its KV, its FFN, and prompts.
struct Whereabouts {
  std::string attention, kv, ffn, prompts;
  bool operator==(const Whereabouts&) const = default;
};

// "gpu 0", or "rows 0-5120 gpu 0, 5120-14336 cpu".
std::string devices_of(const PlacementReport& p, const std::string& device, const SplitReport& split) {
  if (split.device.empty()) return device;
  const std::string row = std::to_string(split.row);
  return "rows 0-" + row + " " + device + ", " + row + "-" + std::to_string(p.rows) + " " + split.device;
}

// What is named already, alone or among rows, is not named again.
void add_devices(std::string& list, const std::string& devices) {
  if (list.find(devices) == std::string::npos) list += (list.empty() ? "" : ", ") + devices;
}

Whereabouts whereabouts(const LayerReport& layer) {
  Whereabouts w;
  w.kv = layer.kv_device;
  if (layer.kv_near != 0) w.kv += " to " + std::to_string(layer.kv_near) + ", then cpu";
  for (const PlacementReport& p : layer.tensors) {
    add_devices(name_in_layer(p.tensor).starts_with("ffn") ? w.ffn : w.attention, devices_of(p, p.device, p.split));
    add_devices(w.prompts, devices_of(p, p.prompt_device, p.prompt_split));
  }
  return w;
}

// A row for each layer, or for neighbours that are alike, with what they take together.
std::string device_layer_table(const PlanReport& plan) {
  Table table("lllll" + std::string(plan.devices.size() + 2, 'r'));
  std::vector<std::string> head = {"layer", "attention", "KV", "FFN", "in prompts"};
  for (const DeviceReport& d : plan.devices) head.push_back("kept in " + d.memory);
  head.insert(head.end(), {"streamed", "ms"});
  table.add(head);
  for (size_t i = 0; i < plan.layers.size();) {
    const Whereabouts w = whereabouts(plan.layers[i]);
    std::vector<uint64_t> held(plan.devices.size());
    uint64_t streamed = 0;
    double ms = 0;
    const size_t first = i;
    for (; i < plan.layers.size() && (i == first || whereabouts(plan.layers[i]) == w); ++i) {
      const LayerReport& layer = plan.layers[i];
      for (size_t d = 0; d < held.size() && d < layer.held.size(); ++d) held[d] += layer.held[d];
      for (const PlacementReport& p : layer.tensors)
        if (layer.name != "embed") streamed += p.bytes_streamed;
      ms += layer.decode_ms;
    }
    const std::string& last = plan.layers[i - 1].name;
    std::vector<std::string> row = {plan.layers[first].name + (i - 1 > first ? " to " + last : ""), w.attention, w.kv,
                                    w.ffn, w.prompts};
    for (const uint64_t bytes : held) row.push_back(format_size(bytes));
    row.insert(row.end(), {format_size(streamed), format("%.2f", ms)});
    table.add(row);
  }
  return table.to_string();
}

std::string device_table(const PlanReport& plan) {
  Table table("lrrrrrr");
  table.add({"memory", "budget", "weights kept", "KV", "weights read per token", "of it over PCIe", "GB/s"});
  for (const DeviceReport& d : plan.devices)
    table.add({d.memory + " of " + d.name, format_size(d.budget), format_size(d.weight_bytes), format_size(d.kv_bytes),
               format_size(d.computed_bytes), d.streamed_bytes != 0 ? format_size(d.streamed_bytes) : "-",
               format_rate(d.memory_gb_s)});
  table.add({"disk", "-", "-", "-", format_size(plan.disk_bytes_per_token), "-", format_rate(plan.machine.disk_gb_s)});
  return table.to_string();
}

std::string memory_table(const std::vector<std::pair<std::string, uint64_t>>& memory) {
  Table table("lr");
  uint64_t total = 0;
  for (const auto& [name, bytes] : memory) {
    table.add({"  " + printable(name), format_size(bytes)});
    total += bytes;
  }
  table.add({"  in all", format_size(total)});
  return table.to_string();
}

std::string tier_table(const PlanReport& plan) {
  Table table("lrrr");
  table.add({"tier", "weights kept", "read per token", "GB/s"});
  table.add({"ram", format_size(plan.resident_bytes), format_size(plan.resident_bytes + plan.disk_bytes_per_token),
             format_rate(plan.machine.memory_gb_s)});
  table.add({"disk", "-", format_size(plan.disk_bytes_per_token), format_rate(plan.machine.disk_gb_s)});
  return table.to_string();
}

std::string memory_of_devices(const PlanReport& plan) {
  std::string out;
  for (const DeviceReport& d : plan.devices) {
    out += d.memory + ", of " + format_size(d.budget) + ":\n" + memory_table(d.given);
    if (d.lent_bytes != 0)
      out += "  but for steps of more than " + std::to_string(d.small_step) + " tokens the workspace has room for " +
             format_size(d.lent_bytes) + " of weights\n";
  }
  return out;
}

std::string predictions(const PlanReport& plan) {
  std::string out;
  if (plan.devices.size() > 1) {
    for (const PromptReport& p : plan.prefill)
      out += "predicted: prompt of " + std::to_string(p.n) + " tokens at " + format_rate(p.tok_s) + " tok/s\n";
    out += "predicted: decode at " + format_rate(plan.decode_tok_s) + " tok/s, with " +
           std::to_string(plan.hand_overs_per_token) + " hand-overs\n";
  } else {
    out += "predicted: prefill of " + std::to_string(plan.prefill_tokens) + " tokens at " +
           format_rate(plan.prefill_tok_s) + " tok/s, decode at " + format_rate(plan.decode_tok_s) + " tok/s";
    out += plan.bottleneck.empty() ? "\n" : ", bound by " + plan.bottleneck + "\n";
  }
  if (plan.bottleneck_share > 0)
    out += "bottleneck: " + plan.bottleneck + format(", busy for %.0f %% of the token\n", 100 * plan.bottleneck_share);
  for (const HelpReport& h : plan.helps)
    out += "with " + h.what + ": decode at " + format_rate(h.decode_tok_s) + " tok/s\n";
  return out;
}

std::string describe(const PlanReport& plan) {
  const std::string budget = plan.ram_budget != 0 ? format_size(plan.ram_budget) : "no budget";
  uint64_t kv_bytes = plan.kv_bytes;
  for (size_t i = 1; i < plan.devices.size(); ++i) kv_bytes += plan.devices[i].kv_bytes;
  std::string kv = format_size(kv_bytes) + " of KV in " + plan.kv_type;
  kv += plan.kv_spill_bytes != 0 ? ", " + format_size(plan.kv_spill_bytes) + " of it may spill to disk"
                                 : ", all in memory";
  std::string out = printable(plan.model) + "\n" + "numerics " + plan.numerics_hash + ", compute " + plan.precision +
                    ", context " + std::to_string(plan.context) + ", steps of up to " + std::to_string(plan.batch) +
                    " tokens\n" + "machine: " + printable(plan.machine.cpu) + ", " + plan.machine.isa + ", " +
                    std::to_string(plan.machine.threads) + " threads" +
                    (plan.machine.prompts.empty() ? "" : ", prompts by " + printable(plan.machine.prompts)) + "\n\n";
  if (plan.devices.size() > 1)
    return out + device_layer_table(plan) + "\n" + device_table(plan) + "\n" + memory_of_devices(plan) + kv + "\n\n" +
           predictions(plan);
  out += layer_table(plan) + "\n" + tier_table(plan) + "\n" + "memory, of " + budget + ":\n" +
         memory_table(plan.memory) + kv + "\n\n";
  return out + predictions(plan);
}

}  // namespace

Result<int> plan(const PlanOptions& options) {
  EngineOptions engine = options.engine;
  engine.warn = print_warning;
  SLUICE_ASSIGN_OR_RETURN(const PlanReport report, Engine::plan(engine));
  Output output;
  output.write(options.json ? plan_json(report) + "\n" : describe(report));
  return output.finish();
}

}  // namespace sluice::apps
