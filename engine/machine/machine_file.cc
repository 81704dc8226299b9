#include "engine/machine/machine_file.h"

#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

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

// Throws json::exception or std::runtime_error, caught by read_machine.
std::map<DType, double> rates_from_json(const json& from, const char* field) {
  std::map<DType, double> rates;
  for (const auto& [name, rate] : from.at(field).items()) {
    const auto type = dtype_named(name);
    if (!type) throw std::runtime_error(std::string(field) + ": unknown type '" + name + "'");
    rates[*type] = rate.get<double>();
  }
  return rates;
}

json to_json(const Machine& machine) {
  json devices = json::array(), tiers = json::array(), links = json::array();
  for (const DeviceRates& d : machine.devices)
    devices.push_back({{"id", d.id},
                       {"detail", d.detail},
                       {"threads", d.threads},
                       {"memory_gb_s", d.memory_gb_s},
                       {"call_us", d.call_us},
                       {"matvec_gb_s", rates_to_json(d.matvec_gb_s)},
                       {"matmul_gflops", rates_to_json(d.matmul_gflops)},
                       {"matvec_f32_gb_s", rates_to_json(d.matvec_f32_gb_s)},
                       {"matmul_f32_gflops", rates_to_json(d.matmul_f32_gflops)}});
  for (const TierRates& t : machine.tiers)
    tiers.push_back({{"id", t.id}, {"capacity", t.capacity}, {"read_gb_s", t.read_gb_s}, {"write_gb_s", t.write_gb_s}});
  for (const LinkRates& l : machine.links)
    links.push_back({{"from", l.from}, {"to", l.to}, {"gb_s", l.gb_s}, {"latency_us", l.latency_us}});
  return {{"name", machine.name}, {"devices", devices}, {"tiers", tiers}, {"links", links}};
}

Machine from_json(const json& from) {
  Machine machine;
  machine.name = from.at("name").get<std::string>();
  for (const json& d : from.at("devices")) {
    DeviceRates rates;
    rates.id = d.at("id").get<std::string>();
    rates.detail = d.value("detail", "");
    rates.threads = d.at("threads").get<uint32_t>();
    rates.memory_gb_s = d.at("memory_gb_s").get<double>();
    rates.call_us = d.value("call_us", 0.0);
    rates.matvec_gb_s = rates_from_json(d, "matvec_gb_s");
    rates.matmul_gflops = rates_from_json(d, "matmul_gflops");
    rates.matvec_f32_gb_s = rates_from_json(d, "matvec_f32_gb_s");
    rates.matmul_f32_gflops = rates_from_json(d, "matmul_f32_gflops");
    machine.devices.push_back(std::move(rates));
  }
  for (const json& t : from.at("tiers"))
    machine.tiers.push_back({t.at("id").get<std::string>(), t.value("capacity", uint64_t{0}),
                             t.at("read_gb_s").get<double>(), t.value("write_gb_s", 0.0)});
  for (const json& l : from.at("links"))
    machine.links.push_back({l.at("from").get<std::string>(), l.at("to").get<std::string>(), l.at("gb_s").get<double>(),
                             l.value("latency_us", 0.0)});
  return machine;
}

}  // namespace

Result<Machine> read_machine(const std::string& path) {
  std::ifstream file(path);
  if (!file) return error(Code::not_found, "{}: cannot be opened", path);
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
