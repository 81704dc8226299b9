#include "apps/print.h"

#include <algorithm>
#include <set>

#include "apps/text.h"

namespace sluice::apps {

std::string format_size(uint64_t bytes) {
  const auto in = [bytes](int power) { return static_cast<double>(bytes) / static_cast<double>(1ULL << power); };
  if (bytes < 1ULL << 10) return std::to_string(bytes) + " B";
  if (bytes < 1ULL << 20) return format("%.1f KiB", in(10));
  if (bytes < 1ULL << 30) return format("%.1f MiB", in(20));
  return format("%.2f GiB", in(30));
}

std::string format_rate(double per_s) {
  if (!(per_s > 0)) return "-";
  return format(per_s < 10 ? "%.2f" : per_s < 100 ? "%.1f" : "%.0f", per_s);
}

void Table::add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }

std::string Table::to_string() const {
  std::vector<size_t> widths(alignment_.size());
  for (const auto& row : rows_)
    for (size_t i = 0; i < row.size() && i < widths.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string out;
  for (const auto& row : rows_) {
    std::string line;
    for (size_t i = 0; i < row.size() && i < widths.size(); ++i) {
      const std::string padding(widths[i] - row[i].size(), ' ');
      if (i != 0) line += "  ";
      line += alignment_[i] == 'r' ? padding + row[i] : row[i] + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

namespace {

// Bytes of the matrices; one that two layers share counts once.
uint64_t model_bytes(const PlanReport& plan) {
  std::set<std::string_view> seen;
  uint64_t bytes = 0;
  for (const LayerReport& layer : plan.layers)
    for (const PlacementReport& tensor : layer.tensors)
      if (seen.insert(tensor.tensor).second) bytes += tensor.bytes_resident + tensor.bytes_streamed;
  return bytes;
}

}  // namespace

namespace {

// "22.1 GB", as sizes of models and memories are told.
std::string gigabytes(uint64_t bytes) { return format("%.1f", static_cast<double>(bytes) * 1e-9); }

// Where the weights are: on accelerators, and what the host keeps of the others.
std::string device_summary(const PlanReport& plan) {
  uint64_t on_gpu = 0;
  for (size_t i = 1; i < plan.devices.size(); ++i) on_gpu += plan.devices[i].weight_bytes;
  std::string line = join({gigabytes(on_gpu), " GB of ", gigabytes(model_bytes(plan)), " on GPU, ",
                           gigabytes(plan.devices.front().weight_bytes), " in RAM"});
  if (plan.disk_bytes_per_token != 0)
    line += join({", ", gigabytes(plan.disk_bytes_per_token), " from disk per token"});
  return line + join({", context ", std::to_string(plan.context)});
}

}  // namespace

std::string plan_summary(const PlanReport& plan) {
  std::string line = plan.devices.size() > 1
                         ? device_summary(plan)
                         : join({format_size(model_bytes(plan)), " model: ", format_size(plan.resident_bytes),
                                 " resident, ", format_size(plan.disk_bytes_per_token), " streamed per token, context ",
                                 std::to_string(plan.context)});
  if (plan.kv_spill_bytes != 0) line += join({", ", format_size(plan.kv_spill_bytes), " of KV may spill to disk"});
  line += join({", predicted ", format_rate(plan.decode_tok_s), " tok/s"});
  if (!plan.bottleneck.empty()) line += join({", bound by ", plan.bottleneck});
  if (!plan.machine.no_gpu.empty()) line += join({" (no GPU: ", plan.machine.no_gpu, ")"});
  return line;
}

namespace {

std::string seconds(double s) { return format(s < 1 ? "%.3f" : "%.2f", s); }
std::string share(double part, double whole) { return whole > 0 ? format("%.1f %%", 100 * part / whole) : "-"; }

std::string causes_table(const StallReport& report) {
  Table table("lrrrrrrr");
  table.add({"traced", "steps", "seconds", "computing", "waits for disk", "for link", "host", "between steps"});
  for (const PeriodReport& p : report.periods)
    table.add({p.name, std::to_string(p.steps), seconds(p.seconds), share(p.computing_s, p.seconds),
               share(p.disk_s, p.seconds), share(p.link_s, p.seconds), share(p.host_s, p.seconds),
               share(p.between_s, p.seconds)});
  return table.to_string();
}

std::string lanes_table(const StallReport& report) {
  Table table("llrrrr");
  table.add({"traced", "lane", "busy", "of it", "bytes", "GB/s"});
  for (const PeriodReport& p : report.periods)
    for (const LaneReport& l : p.lanes)
      table.add(
          {p.name, l.name, seconds(l.busy_s), share(l.busy_s, p.seconds), format_size(l.bytes), format_rate(l.gb_s)});
  return table.to_string();
}

// Nothing where nothing was traced.
std::string stall_tables(const StallReport& report) {
  if (report.periods.empty()) return {};
  std::string out = join({"\n", causes_table(report), "\n", lanes_table(report)});
  if (report.dropped_spans != 0)
    out += join(
        {std::to_string(report.dropped_spans), " spans are missing: the trace was full, or its clocks too slow\n"});
  return out;
}

}  // namespace

double planned_prefill_tok_s(const PlanReport& plan, uint32_t n) {
  const std::vector<PromptReport>& known = plan.prefill;
  const auto seconds = [](const PromptReport& p) { return p.n / p.tok_s; };
  const auto next = std::find_if(known.begin(), known.end(), [n](const PromptReport& p) { return p.n >= n; });
  if (known.empty() || n == 0) return plan.prefill_tok_s;
  if (next == known.begin()) return n / seconds(*next);
  const PromptReport& before = *std::prev(next);
  if (next == known.end()) return before.tok_s;
  const double part = static_cast<double>(n - before.n) / (next->n - before.n);
  return n / (seconds(before) + part * (seconds(*next) - seconds(before)));
}

std::string run_statistics(const Engine& engine, const Generation& generation) {
  Table tiers("lrrrrr");
  tiers.add({"tier", "held", "read", "GB/s", "roofline", "of it"});
  for (const TierReport& tier : engine.tiers()) {
    const bool known = tier.gb_s > 0 && tier.roofline_gb_s > 0;
    tiers.add({tier.name, format_size(tier.bytes_resident), format_size(tier.bytes_read), format_rate(tier.gb_s),
               format_rate(tier.roofline_gb_s), known ? format("%.0f %%", 100 * tier.gb_s / tier.roofline_gb_s) : "-"});
  }
  const PlanReport plan = engine.plan_report();
  const MemoryReport memory = engine.memory();
  Table speed("lrrr");
  speed.add({"phase", "tokens", "tok/s", "planned"});
  speed.add({"prefill", std::to_string(generation.prompt_tokens), format_rate(generation.prefill_tok_s),
             format_rate(planned_prefill_tok_s(plan, generation.prompt_tokens))});
  speed.add({"decode", std::to_string(generation.tokens.size()), format_rate(generation.decode_tok_s),
             format_rate(plan.decode_tok_s)});
  return join({"\n", tiers.to_string(), "\n", speed.to_string(), stall_tables(engine.stalls()), "\n",
               format("loaded in %.2f s", engine.load_seconds()), ", budget ", format_size(memory.ram_budget),
               ", its peak ", format_size(memory.ram_peak), ", peak RSS ", format_size(memory.rss_peak), "\n"});
}

}  // namespace sluice::apps
