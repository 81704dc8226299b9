// Machine: what the hardware gives, as measured or as described by people in a file.
//
// Devices compute at rates that depend on the type of the weights and the number of tokens; tiers hold
// bytes; links move them. Everything has an id; nothing here says "the GPU".
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace sluice {

struct DeviceRates {
  std::string id;      // "cpu"
  std::string detail;  // model and ISA, for people
  uint32_t threads = 1;
  double memory_gb_s = 0;                   // reading its own memory with all threads
  std::map<DType, double> matvec_gb_s;      // weight bytes per second, products with one token
  std::map<DType, double> matmul_gflops;    // products with many tokens
  std::map<DType, double> matvec_f32_gb_s;  // the same two with Compute::f32
  std::map<DType, double> matmul_f32_gflops;
  double call_us = 0;  // cost of one kernel call beyond its bytes
};

struct TierRates {
  std::string id;  // "host", "disk"
  uint64_t capacity = 0;
  double read_gb_s = 0, write_gb_s = 0;
};

struct LinkRates {
  std::string from, to;
  double gb_s = 0;
  double latency_us = 0;
};

struct Machine {
  std::string name;
  std::vector<DeviceRates> devices;
  std::vector<TierRates> tiers;
  std::vector<LinkRates> links;

  // Null where there is none of that id.
  const DeviceRates* device(std::string_view id) const;
  const TierRates* tier(std::string_view id) const;
};

}  // namespace sluice
