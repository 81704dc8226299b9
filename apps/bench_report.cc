#include "apps/bench_report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "apps/output.h"
#include "apps/print.h"
#include "apps/text.h"
#include "sluice/engine.h"

namespace sluice::apps {
namespace {

using Json = nlohmann::ordered_json;

// "pp512", "tg128", "tg128 x 8 @ d1024".
std::string test_name(const BenchResult& r) {
  std::string name = r.n_prompt > 0 ? "pp" + std::to_string(r.n_prompt) : "tg" + std::to_string(r.n_generated);
  if (r.sequences > 1) name += " x " + std::to_string(r.sequences);
  if (r.depth > 0) name += " @ d" + std::to_string(r.depth);
  return name;
}

std::vector<double> rates(const BenchResult& r) {
  std::vector<double> out;
  for (const double seconds : r.seconds) out.push_back(r.tokens() / seconds);
  return out;
}

std::string model_name(const ModelReport& model) {
  const std::string name = model.name.empty() ? model.path.substr(model.path.rfind('/') + 1) : model.name;
  return printable(name);
}

double planned(const BenchResult& r) {
  return r.n_prompt > 0 ? planned_prefill_tok_s(r.plan, r.n_prompt) : r.plan.decode_tok_s;
}

const BenchPath* path_named(const BenchResult& r, std::string_view name) {
  for (const BenchPath& path : r.paths)
    if (path.name == name) return &path;
  return nullptr;
}

// "19.6 (58 %)": GB/s and the part of the roofline.
std::string path_text(const BenchPath* path) {
  if (path == nullptr || path->bytes == 0) return "-";
  if (!(path->roofline_gb_s > 0)) return format("%.2f", path->gb_s);
  return format("%.2f (%.0f %%)", path->gb_s, 100 * path->gb_s / path->roofline_gb_s);
}

constexpr const char* markdown_head =
    "| model | size | params | threads | ram | test | t/s | memory GB/s | disk GB/s |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";

std::string markdown_row(const BenchResult& r, const ModelReport& m) {
  const Spread s = spread_of(rates(r));
  return join({"| ", model_name(m), " | ", format_size(m.tensor_bytes), " | ",
               format("%.2f B", static_cast<double>(m.parameters) * 1e-9), " | ", std::to_string(r.threads), " | ",
               format_size(r.plan.ram_budget), " | ", test_name(r), " | ", format("%.2f ± %.2f", s.mean, s.deviation),
               " | ", path_text(path_named(r, "ram")), " | ", path_text(path_named(r, "disk")), " |\n"});
}

// The fields that llama-bench has carry its names.
Json fields(const BenchResult& r, const ModelReport& m) {
  std::vector<double> ns = r.seconds;
  for (double& value : ns) value *= 1e9;
  const Spread t = spread_of(ns), ts = spread_of(rates(r));
  return {{"version", version},
          {"cpu_info", r.plan.machine.cpu},
          {"isa", r.plan.machine.isa},
          {"prompts", r.plan.machine.prompts},
          {"model_filename", r.model},
          {"model_type", m.name},
          {"model_size", m.tensor_bytes},
          {"model_n_params", m.parameters},
          {"precision", r.plan.precision},
          {"n_batch", r.plan.batch},
          {"n_threads", r.threads},
          {"ram_budget", r.plan.ram_budget},
          {"ram_peak", r.memory.ram_peak},
          {"rss_peak", r.memory.rss_peak},
          {"load_s", r.load_s},
          {"n_sequences", r.sequences},
          {"n_prompt", r.n_prompt},
          {"n_gen", r.n_generated},
          {"n_depth", r.depth},
          {"avg_ns", t.mean},
          {"stddev_ns", t.deviation},
          {"median_ns", t.median},
          {"avg_ts", ts.mean},
          {"stddev_ts", ts.deviation},
          {"median_ts", ts.median},
          {"min_ts", ts.least},
          {"max_ts", ts.most},
          {"planned_ts", r.sequences == 1 ? Json(planned(r)) : Json()}};
}

Json path_json(const BenchPath& path) {
  const bool known = path.roofline_gb_s > 0;
  return {{"name", path.name},
          {"bytes", path.bytes},
          {"gb_s", path.gb_s},
          {"roofline_gb_s", path.roofline_gb_s},
          {"of_roofline", known ? Json(path.gb_s / path.roofline_gb_s) : Json()}};
}

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string json_object(const BenchResult& r, const ModelReport& m) {
  Json object = fields(r, m);
  object["samples_s"] = r.seconds;
  object["samples_ts"] = rates(r);
  object["paths"] = Json::array();
  for (const BenchPath& path : r.paths) object["paths"].push_back(path_json(path));
  return dump(object);
}

// A text in quotes, quotes within doubled.
std::string csv_cell(const Json& value) {
  if (!value.is_string()) return value.is_null() ? "" : dump(value);
  std::string out = "\"";
  for (const char c : value.get<std::string>()) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

Json csv_fields(const BenchResult& r, const ModelReport& m) {
  Json all = fields(r, m);
  for (const BenchPath& path : r.paths) {
    all[path.name + "_gb_s"] = path.gb_s;
    all[path.name + "_roofline_gb_s"] = path.roofline_gb_s;
  }
  return all;
}

std::string csv_head(const Json& all) {
  std::string line;
  for (const auto& [name, value] : all.items()) line += (line.empty() ? "" : ",") + name;
  return line + "\n";
}

std::string csv_row(const Json& all) {
  std::string line;
  bool first = true;
  for (const auto& [name, value] : all.items()) {
    line += (first ? "" : ",") + csv_cell(value);
    first = false;
  }
  return line + "\n";
}

}  // namespace

std::vector<BenchPath> paths_between(const std::vector<TierReport>& before, const std::vector<TierReport>& after,
                                     const std::vector<double>& seconds) {
  const double time = std::accumulate(seconds.begin(), seconds.end(), 0.0);
  std::vector<BenchPath> paths;
  for (size_t i = 0; i < after.size() && i < before.size(); ++i) {
    const uint64_t bytes = after[i].bytes_read - before[i].bytes_read;
    const double gb_s = time > 0 ? static_cast<double>(bytes) / time * 1e-9 : 0;
    paths.push_back({after[i].name, bytes, gb_s, after[i].roofline_gb_s});
  }
  return paths;
}

Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  Spread s;
  s.mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(n);
  double squares = 0;
  for (const double v : values) squares += (v - s.mean) * (v - s.mean);
  if (n > 1) s.deviation = std::sqrt(squares / static_cast<double>(n - 1));
  s.median = n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
  s.least = values.front();
  s.most = values.back();
  return s;
}

std::string BenchWriter::add(const BenchResult& result, const ModelReport& model) {
  const bool first = std::exchange(first_, false);
  switch (format_) {
    case BenchFormat::markdown: return (first ? markdown_head : "") + markdown_row(result, model);
    case BenchFormat::json: return (first ? "[\n  " : ",\n  ") + json_object(result, model);
    case BenchFormat::csv: {
      const Json all = csv_fields(result, model);
      return (first ? csv_head(all) : "") + csv_row(all);
    }
  }
  return "";
}

std::string BenchWriter::end() {
  if (format_ != BenchFormat::json) return "";
  return first_ ? "[]\n" : "\n]\n";
}

}  // namespace sluice::apps
