// Machine: what the hardware gives, as measured or as described by people in a file.
//
// Devices compute at rates that depend on the type of the weights and the number of tokens; tiers hold
// bytes; links move them. Everything has an id; nothing here says "the GPU". The first device is the CPU, "cpu",
// whose memory is the tier "host"; an accelerator, such as "gpu 0", has a tier of its own name and links to and
// from "host".
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/kernel.h"

namespace sluice {

// One product as it was timed, with weights that come from memory: a matrix of this type and size with one
// token, and with `tokens` of them.
struct ProductTimes {
  DType dtype = DType::f32;
  Compute compute = Compute::fast;
  uint32_t rows = 0, cols = 0, tokens = 0;
  double one_us = 0, many_us = 0;
};

// What a layer of these sizes does beside its products, as it was timed. Attention of one token takes
// attention_us plus cell_ns for each token held; that of many takes pair_ns for each pair of a token and
// one that it sees.
struct LayerTimes {
  Compute compute = Compute::fast;
  uint32_t hidden_size = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0, ffn_size = 0, tokens = 0;
  double one_us = 0, many_us = 0;  // norms, rotations, activations and the like, without attention
  double attention_us = 0, cell_ns = 0, pair_ns = 0;
};

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
  double recorded_us = 0;  // the same in a step that was recorded and is replayed whole; 0: not measured
  // Where this was measured: `matmul_gflops` is of so many tokens, and those beyond, or beyond those of `products`, go
  // at more_gflops, since what is done once for all of them is done then. 0: not measured.
  uint32_t many_tokens = 0;
  double more_gflops = 0;
  // Of the models that were planned on this machine; what is not here is derived from the rates.
  std::vector<ProductTimes> products;
  std::vector<LayerTimes> layers;
};

struct TierRates {
  std::string id;  // "host", "disk", "page cache"
  uint64_t capacity = 0;
  double read_gb_s = 0, write_gb_s = 0;
  // While both run: reading this tier beside a device that computes, and the weight bytes per second of
  // that device's products, as a part of what they are alone. 0 and 1 where they were not measured.
  double read_beside_gb_s = 0;
  double compute_beside = 1;
};

struct LinkRates {
  std::string from, to;
  double gb_s = 0;
  double latency_us = 0;
  // While both run: this link beside the host's products, and those as a part of what they are alone. 0 and 1
  // where they were not measured.
  double beside_gb_s = 0;
  double compute_beside = 1;
};

struct Machine {
  std::string name;
  std::string build;  // of the program that measured: rates of its kernels are no other's
  std::vector<DeviceRates> devices;
  std::vector<TierRates> tiers;
  std::vector<LinkRates> links;

  // Null where there is none of that id.
  const DeviceRates* device(std::string_view id) const;
  const TierRates* tier(std::string_view id) const;
};

}  // namespace sluice
