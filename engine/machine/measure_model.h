// Times of what one model does, on this machine: its products at their real sizes, and a layer's rest.
#pragma once

#include "core/graph.h"
#include "core/machine.h"
#include "cpu/cpu_device.h"

namespace sluice::engine {

// Adds to `rates` the products and the layer of `graph` that are not there yet; true if any was missing.
// Takes up to `weights` bytes of memory, and what a layer's activations of 64 tokens take, for some tenths
// of a second.
Result<bool> measure_model(const Graph& graph, Compute compute, uint64_t weights, cpu::CpuDevice& device,
                           DeviceRates& rates);

}  // namespace sluice::engine
