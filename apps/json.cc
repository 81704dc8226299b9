#include "apps/json.h"

#include <nlohmann/json.hpp>

#include "apps/text.h"

namespace sluice::apps {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json tier(const TierReport& t) {
  return {{"name", t.name},
          {"bytes_resident", t.bytes_resident},
          {"bytes_read", t.bytes_read},
          {"gb_s", t.gb_s},
          {"roofline_gb_s", t.roofline_gb_s}};
}

Json period(const PeriodReport& p) {
  Json lanes = Json::array();
  for (const LaneReport& l : p.lanes)
    lanes.push_back({{"name", l.name}, {"busy_s", l.busy_s}, {"bytes", l.bytes}, {"gb_s", l.gb_s}});
  return {{"name", p.name},           {"steps", p.steps},   {"seconds", p.seconds}, {"computing_s", p.computing_s},
          {"disk_s", p.disk_s},       {"link_s", p.link_s}, {"host_s", p.host_s},   {"between_s", p.between_s},
          {"lanes", std::move(lanes)}};
}

Json stalls(const StallReport& report) {
  Json periods = Json::array();
  for (const PeriodReport& p : report.periods) periods.push_back(period(p));
  return {{"dropped_spans", report.dropped_spans}, {"periods", std::move(periods)}};
}

// Only of a matrix whose rows are divided.
void add_split(Json& placement, const char* key, const PlacementReport& p, const SplitReport& split) {
  if (!split.device.empty()) placement[key] = {{"from_row", split.row}, {"to_row", p.rows}, {"device", split.device}};
}

Json placement(const PlacementReport& p) {
  Json out = {{"tensor", p.tensor},
              {"type", p.type},
              {"device", p.device},
              {"bytes_resident", p.bytes_resident},
              {"bytes_streamed", p.bytes_streamed},
              {"tiles_resident", p.tiles_resident},
              {"tiles_streamed", p.tiles_streamed},
              {"prompt_device", p.prompt_device}};
  add_split(out, "split", p, p.split);
  add_split(out, "prompt_split", p, p.prompt_split);
  return out;
}

Json layer(const LayerReport& l) {
  Json tensors = Json::array();
  for (const PlacementReport& p : l.tensors) tensors.push_back(placement(p));
  return {{"name", l.name}, {"tensors", std::move(tensors)}, {"kv_device", l.kv_device},
          {"held", l.held}, {"decode_ms", l.decode_ms},      {"kv_near", l.kv_near}};
}

Json sizes(const std::vector<std::pair<std::string, uint64_t>>& pairs, const char* key) {
  Json out = Json::array();
  for (const auto& [name, bytes] : pairs) out.push_back({{key, name}, {"bytes", bytes}});
  return out;
}

Json device(const DeviceReport& d) {
  return {{"name", d.name},
          {"memory", d.memory},
          {"budget", d.budget},
          {"weight_bytes", d.weight_bytes},
          {"kv_bytes", d.kv_bytes},
          {"staging_bytes", d.staging_bytes},
          {"lent_bytes", d.lent_bytes},
          {"small_step", d.small_step},
          {"computed_bytes_per_token", d.computed_bytes},
          {"link_bytes_per_token", d.streamed_bytes},
          {"memory_gb_s", d.memory_gb_s},
          {"link_gb_s", d.link_gb_s},
          {"given", sizes(d.given, "name")}};
}

// The memories of the devices, and the disk.
Json plan_tiers(const PlanReport& plan) {
  Json tiers = Json::array();
  for (const DeviceReport& d : plan.devices) tiers.push_back(device(d));
  tiers.push_back({{"name", "disk"},
                   {"memory", "disk"},
                   {"disk_bytes_per_token", plan.disk_bytes_per_token},
                   {"memory_gb_s", plan.machine.disk_gb_s}});
  return tiers;
}

Json prompts(const PlanReport& plan) {
  Json out = Json::array();
  for (const PromptReport& p : plan.prefill) out.push_back({{"n", p.n}, {"tok_s", p.tok_s}});
  return out;
}

Json helps(const PlanReport& plan) {
  Json out = Json::array();
  for (const HelpReport& h : plan.helps) out.push_back({{"what", h.what}, {"decode_tok_s", h.decode_tok_s}});
  return out;
}

Json tensor(const TensorReport& t) {
  return {{"name", t.name},   {"type", t.type},     {"shape", t.shape},
          {"bytes", t.bytes}, {"offset", t.offset}, {"file", t.file}};
}

}  // namespace

std::string run_json(const Generation& generation, const Engine& engine) {
  const MemoryReport memory = engine.memory();
  Json tiers = Json::array();
  for (const TierReport& t : engine.tiers()) tiers.push_back(tier(t));
  Json json = {
      {"prompt_tokens", generation.prompt_tokens},
      {"tokens", generation.tokens},
      {"text", generation.text},
      {"stop_reason", generation.stop_reason},
      {"timings",
       {{"load_s", engine.load_seconds()},
        {"prefill_s", generation.prefill_s},
        {"prefill_tok_s", generation.prefill_tok_s},
        {"decode_s", generation.decode_s},
        {"decode_tok_s", generation.decode_tok_s}}},
      {"memory", {{"ram_budget", memory.ram_budget}, {"ram_peak", memory.ram_peak}, {"rss_peak", memory.rss_peak}}},
      {"tiers", std::move(tiers)}};
  if (const StallReport report = engine.stalls(); !report.periods.empty()) json["stalls"] = stalls(report);
  return dump(json);
}

std::string plan_json(const PlanReport& plan) {
  Json layers = Json::array();
  for (const LayerReport& l : plan.layers) layers.push_back(layer(l));
  return dump({{"model", plan.model},
               {"numerics_hash", plan.numerics_hash},
               {"precision", plan.precision},
               {"kv_type", plan.kv_type},
               {"context", plan.context},
               {"batch", plan.batch},
               {"short_prompt", plan.short_prompt},
               {"ram_budget", plan.ram_budget},
               {"memory", sizes(plan.memory, "name")},
               {"layers", std::move(layers)},
               {"resident_bytes", plan.resident_bytes},
               {"disk_bytes_per_token", plan.disk_bytes_per_token},
               {"kv_bytes", plan.kv_bytes},
               {"kv_spill_bytes", plan.kv_spill_bytes},
               {"decode_tok_s", plan.decode_tok_s},
               {"prefill_tok_s", plan.prefill_tok_s},
               {"prefill_tokens", plan.prefill_tokens},
               {"prefill", prompts(plan)},
               {"bottleneck", plan.bottleneck},
               {"bottleneck_share", plan.bottleneck_share},
               {"hand_overs_per_token", plan.hand_overs_per_token},
               {"tiers", plan_tiers(plan)},
               {"helps", helps(plan)},
               {"machine",
                {{"cpu", plan.machine.cpu},
                 {"isa", plan.machine.isa},
                 {"prompts", plan.machine.prompts},
                 {"no_gpu", plan.machine.no_gpu},
                 {"threads", plan.machine.threads},
                 {"memory_gb_s", plan.machine.memory_gb_s},
                 {"disk_gb_s", plan.machine.disk_gb_s},
                 {"name", plan.machine.name}}}});
}

std::string model_json(const ModelReport& model) {
  Json metadata = Json::object();
  for (const auto& [key, value] : model.metadata) metadata[key] = value;
  Json tensors = Json::array();
  for (const TensorReport& t : model.tensors) tensors.push_back(tensor(t));
  return dump({{"path", model.path},
               {"architecture", model.architecture},
               {"name", model.name},
               {"files", sizes(model.files, "path")},
               {"metadata", std::move(metadata)},
               {"tensors", std::move(tensors)},
               {"tensor_bytes", model.tensor_bytes},
               {"parameters", model.parameters}});
}

std::string tokens_json(std::span<const int32_t> tokens) {
  std::string out = "{\"tokens\":[";
  for (size_t i = 0; i < tokens.size(); ++i) out += join({i == 0 ? "" : ",", std::to_string(tokens[i])});
  return out + "]}";
}

std::string perplexity_fields(double perplexity, uint64_t n) {
  return join({"\"ppl\":", dump(Json(perplexity)), ",\"n\":", std::to_string(n)});
}

std::string scores_json(std::span<const TokenScore> scores) {
  Json out = Json::array();
  for (const TokenScore& s : scores)
    out.push_back({{"id", s.id}, {"logprob", s.logprob}, {"argmax", s.argmax}, {"margin", s.margin}});
  return dump(out);
}

}  // namespace sluice::apps
