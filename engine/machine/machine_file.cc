#include "engine/machine/machine_file.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>

#include "core/error.h"

namespace sluice::engine {
namespace {

using nlohmann::json;

std::optional<DType> dtype_named(std::string_view name) {
  for (int i = 0; i <= static_cast<int>(DType::i32); ++i)
    if (info(static_cast<DType>(i)).name == name) return static_cast<DType>(i);
  return std::nullopt;
}

json rates_to_json(const std::map<DType, double>& rates) {
  json out = json::object();
  for (const auto& [type, rate] : rates) out[std::string(info(type).name)] = rate;
  return out;
}

// The readers throw json::exception or std::runtime_error, caught by read_machine.
double number(const json& from, const char* field, std::optional<double> otherwise = {}) {
  if (otherwise && !from.contains(field)) return *otherwise;
  const json& value = from.at(field);
  if (!value.is_number()) throw std::runtime_error(std::string(field) + ": not a number");
  const auto rate = value.get<double>();
  if (!(rate >= 0 && rate <= 1e12)) throw std::runtime_error(std::string(field) + ": not between 0 and 1e12");
  return rate;
}

std::map<DType, double> rates_from_json(const json& from, const char* field) {
  std::map<DType, double> rates;
  if (!from.at(field).is_object()) throw std::runtime_error(std::string(field) + ": not an object");
  for (const auto& [name, rate] : from.at(field).items()) {
    const auto type = dtype_named(name);
    if (!type) throw std::runtime_error(std::string(field) + ": unknown type '" + name + "'");
    rates[*type] = number(from.at(field), name.c_str());
  }
  return rates;
}

const char* compute_name(Compute compute) { return compute == Compute::f32 ? "f32" : "fast"; }

json to_json(const ProductTimes& p) {
  return {{"type", info(p.dtype).name},
          {"compute", compute_name(p.compute)},
          {"rows", p.rows},
          {"cols", p.cols},
          {"tokens", p.tokens},
          {"one_us", p.one_us},
          {"many_us", p.many_us}};
}

json to_json(const LayerTimes& l) {
  return {{"compute", compute_name(l.compute)},
          {"hidden_size", l.hidden_size},
          {"n_heads", l.n_heads},
          {"n_kv_heads", l.n_kv_heads},
          {"head_dim", l.head_dim},
          {"ffn_size", l.ffn_size},
          {"tokens", l.tokens},
          {"one_us", l.one_us},
          {"many_us", l.many_us},
          {"attention_us", l.attention_us},
          {"cell_ns", l.cell_ns},
          {"pair_ns", l.pair_ns}};
}

template <class T>
json list_to_json(const std::vector<T>& items) {
  json out = json::array();
  for (const T& item : items) out.push_back(to_json(item));
  return out;
}

uint32_t whole(const json& from, const char* field) {
  const json& value = from.at(field);
  if (!value.is_number_unsigned() || value.get<uint64_t>() > UINT32_MAX)
    throw std::runtime_error(std::string(field) + ": not a whole number of 32 bits");
  return value.get<uint32_t>();
}

Compute compute_from_json(const json& from) {
  const auto name = from.at("compute").get<std::string>();
  if (name != "fast" && name != "f32") throw std::runtime_error("compute: '" + name + "' is not fast or f32");
  return name == "f32" ? Compute::f32 : Compute::fast;
}

DType type_from_json(const json& from) {
  const auto name = from.at("type").get<std::string>();
  const auto type = dtype_named(name);
  if (!type) throw std::runtime_error("type: unknown type '" + name + "'");
  return *type;
}

ProductTimes product_from_json(const json& p) {
  return {type_from_json(p),  compute_from_json(p), whole(p, "rows"),    whole(p, "cols"),
          whole(p, "tokens"), number(p, "one_us"),  number(p, "many_us")};
}

LayerTimes layer_from_json(const json& l) {
  return {compute_from_json(l), whole(l, "hidden_size"),   whole(l, "n_heads"),  whole(l, "n_kv_heads"),
          whole(l, "head_dim"), whole(l, "ffn_size"),      whole(l, "tokens"),   number(l, "one_us"),
          number(l, "many_us"), number(l, "attention_us"), number(l, "cell_ns"), number(l, "pair_ns")};
}

const json& list(const json& from, const char* field) {
  const json& value = from.at(field);
  if (!value.is_array()) throw std::runtime_error(std::string(field) + ": not a list");
  return value;
}

json to_json(const Machine& machine) {
  json devices = json::array(), tiers = json::array(), links = json::array();
  for (const DeviceRates& d : machine.devices)
    devices.push_back({{"id", d.id},
                       {"detail", d.detail},
                       {"threads", d.threads},
                       {"memory_gb_s", d.memory_gb_s},
                       {"call_us", d.call_us},
                       {"recorded_us", d.recorded_us},
                       {"matvec_gb_s", rates_to_json(d.matvec_gb_s)},
                       {"matmul_gflops", rates_to_json(d.matmul_gflops)},
                       {"many_tokens", d.many_tokens},
                       {"more_gflops", d.more_gflops},
                       {"matvec_f32_gb_s", rates_to_json(d.matvec_f32_gb_s)},
                       {"matmul_f32_gflops", rates_to_json(d.matmul_f32_gflops)},
                       {"products", list_to_json(d.products)},
                       {"layers", list_to_json(d.layers)}});
  for (const TierRates& t : machine.tiers)
    tiers.push_back({{"id", t.id},
                     {"capacity", t.capacity},
                     {"read_gb_s", t.read_gb_s},
                     {"write_gb_s", t.write_gb_s},
                     {"read_beside_gb_s", t.read_beside_gb_s},
                     {"compute_beside", t.compute_beside}});
  for (const LinkRates& l : machine.links)
    links.push_back({{"from", l.from},
                     {"to", l.to},
                     {"gb_s", l.gb_s},
                     {"latency_us", l.latency_us},
                     {"beside_gb_s", l.beside_gb_s},
                     {"compute_beside", l.compute_beside}});
  return {{"name", machine.name}, {"build", machine.build}, {"devices", devices}, {"tiers", tiers}, {"links", links}};
}

DeviceRates device_from_json(const json& d) {
  DeviceRates rates;
  rates.id = d.at("id").get<std::string>();
  rates.detail = d.value("detail", "");
  rates.threads = whole(d, "threads");
  rates.memory_gb_s = number(d, "memory_gb_s");
  rates.call_us = number(d, "call_us", 0);
  rates.recorded_us = number(d, "recorded_us", 0);
  rates.matvec_gb_s = rates_from_json(d, "matvec_gb_s");
  rates.matmul_gflops = rates_from_json(d, "matmul_gflops");
  if (d.contains("many_tokens")) rates.many_tokens = whole(d, "many_tokens");
  rates.more_gflops = number(d, "more_gflops", 0);
  rates.matvec_f32_gb_s = rates_from_json(d, "matvec_f32_gb_s");
  rates.matmul_f32_gflops = rates_from_json(d, "matmul_f32_gflops");
  if (d.contains("products"))
    for (const json& p : list(d, "products")) rates.products.push_back(product_from_json(p));
  if (d.contains("layers"))
    for (const json& l : list(d, "layers")) rates.layers.push_back(layer_from_json(l));
  return rates;
}

Machine from_json(const json& from) {
  Machine machine;
  machine.name = from.at("name").get<std::string>();
  machine.build = from.value("build", "");
  for (const json& d : list(from, "devices")) machine.devices.push_back(device_from_json(d));
  if (machine.devices.empty()) throw std::runtime_error("devices: there is none");
  for (const json& t : list(from, "tiers"))
    machine.tiers.push_back({t.at("id").get<std::string>(), t.value("capacity", uint64_t{0}), number(t, "read_gb_s"),
                             number(t, "write_gb_s", 0), number(t, "read_beside_gb_s", 0),
                             std::clamp(number(t, "compute_beside", 1), 0.01, 1.0)});
  for (const json& l : list(from, "links"))
    machine.links.push_back({l.at("from").get<std::string>(), l.at("to").get<std::string>(), number(l, "gb_s"),
                             number(l, "latency_us", 0), number(l, "beside_gb_s", 0),
                             std::clamp(number(l, "compute_beside", 1), 0.01, 1.0)});
  return machine;
}

}  // namespace

Result<Machine> read_machine(const std::string& path) {
  constexpr std::uintmax_t most_bytes = 16 << 20;
  std::error_code failed;
  const auto bytes = std::filesystem::file_size(path, failed);
  std::ifstream file(path);
  if (failed || !file) return error(Code::not_found, "{}: cannot be opened", path);
  if (bytes > most_bytes) return error(Code::corrupt, "{}: not a machine file: {} bytes", path, bytes);
  try {
    return from_json(json::parse(file));
  } catch (const std::exception& e) {
    return error(Code::corrupt, "{}: not a machine file: {}", path, e.what());
  }
}

Status write_machine(const Machine& machine, const std::string& path) {
  const std::string part = path + "." + std::to_string(getpid());
  std::ofstream file(part);
  file << to_json(machine).dump(2) << "\n";
  file.close();
  if (!file || std::rename(part.c_str(), path.c_str()) != 0) {
    std::remove(part.c_str());
    return error(Code::io_error, "{}: cannot be written", path);
  }
  return {};
}

}  // namespace sluice::engine
