// A machine with one GPU whose rates are made up, for planners and simulations: products on the CPU in f32 alone.
#pragma once

#include "core/bytes.h"
#include "core/machine.h"

namespace sluice::testing {

inline Machine gpu_machine(double cpu_gb_s, double gpu_gb_s, double link_gb_s, double latency_us) {
  DeviceRates cpu, gpu;
  cpu.id = "cpu";
  cpu.memory_gb_s = cpu_gb_s;
  cpu.matmul_f32_gflops[DType::f32] = 20 * cpu_gb_s;
  gpu.id = "gpu 0";
  gpu.memory_gb_s = gpu_gb_s;
  gpu.call_us = 1;
  gpu.matmul_gflops[DType::bf16] = 100 * gpu_gb_s;
  Machine m;
  m.devices = {cpu, gpu};
  m.tiers = {{"host", 64 * GiB, cpu_gb_s, cpu_gb_s}, {"gpu 0", 8 * GiB, gpu_gb_s, gpu_gb_s}, {"disk", 0, 1, 1}};
  m.links = {{"host", "gpu 0", link_gb_s, latency_us, 0.9 * link_gb_s, 0.8}, {"gpu 0", "host", link_gb_s, latency_us}};
  return m;
}

}  // namespace sluice::testing
