// The Graph of a model shape, as if its file were there: for plans and simulations that read no weight.
#pragma once

#include "bench/model_shape.h"
#include "core/graph.h"

namespace sluice::bench {

// Tensors lie one behind the other in file 0, aligned as make_gguf does.
Graph graph_of(const ModelShape& shape);

}  // namespace sluice::bench
