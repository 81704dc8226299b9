// Products by type, shape and number of tokens. Weights are taken in turn from more memory than the L2 holds.
#include <algorithm>

#include "bench/gpu/rig.h"
#include "core/error.h"

namespace sluice::bench {
namespace {

struct Shape {
  uint32_t rows, cols;
};
constexpr Shape shapes[] = {{1024, 4096}, {4096, 4096},  {14336, 4096}, {4096, 14336},
                            {8192, 8192}, {28672, 8192}, {8192, 28672}};
constexpr Shape vocabulary{128256, 4096};

// Rows of q8 at x(), made of ordinary numbers that lie behind them.
Status quantize(Rig& rig, uint32_t cols, uint32_t tokens) {
  const auto* from = reinterpret_cast<const float*>(rig.x() + Rig::act_bytes / 2);
  return gpu::run(rig.timer().stream(), QuantizeCall{from, ActFormat::q8, tokens, cols, rig.x()}, rig.context());
}

Status product(Rig& rig, DType type, ActFormat format, Shape shape, uint32_t tokens) {
  const uint64_t bytes = shape.rows * row_bytes(type, shape.cols);
  const auto in_memory = static_cast<uint32_t>(Rig::weight_bytes / bytes);
  const uint64_t wanted = std::max<uint64_t>(tokens > 64 ? 2 : 4, Rig::cold_bytes / bytes);
  const auto n = static_cast<uint32_t>(std::min<uint64_t>(wanted, 64));
  const auto call = [&](uint32_t i) {
    return MatmulCall{rig.weights() + i % in_memory * bytes,
                      type,
                      shape.rows,
                      shape.cols,
                      rig.x(),
                      format,
                      tokens,
                      rig.out(),
                      shape.rows,
                      nullptr,
                      false};
  };
  if (format == ActFormat::q8) SLUICE_RETURN_IF_ERROR(quantize(rig, shape.cols, tokens));
  const Cost counted = cost(KernelCall(call(0)));
  const char* name = format == ActFormat::q8 ? "matmul" : "matmul f32";
  return rig.time(name, fmt::format("{} {}x{} n={}", info(type).name, shape.rows, shape.cols, tokens), n, counted.bytes,
                  counted.flops, call);
}

}  // namespace

Status bench_products(Rig& rig, const std::string& only) {
  for (const DType type : {DType::q4_k, DType::q6_k, DType::q8_0, DType::q4_0, DType::q5_0}) {
    if (!only.empty() && only != info(type).name) continue;
    const bool all = type == DType::q4_k || type == DType::q6_k || type == DType::q8_0;
    for (const Shape shape : shapes) {
      if (!all && shape.cols * uint64_t{shape.rows} > 14336 * 4096) continue;
      for (const uint32_t tokens : {1u, 2u, 4u, 8u, 16u, 64u, 128u, 512u, 2048u})
        SLUICE_RETURN_IF_ERROR(product(rig, type, ActFormat::q8, shape, tokens));
    }
  }
  for (const uint32_t tokens : {1u, 2u, 4u, 8u, 16u})
    SLUICE_RETURN_IF_ERROR(product(rig, DType::q6_k, ActFormat::q8, vocabulary, tokens));
  for (const DType type : {DType::q4_k, DType::q8_0, DType::bf16, DType::f32})
    for (const uint32_t tokens : {1u, 64u})
      SLUICE_RETURN_IF_ERROR(product(rig, type, ActFormat::f32, {14336, 4096}, tokens));
  return {};
}

}  // namespace sluice::bench
