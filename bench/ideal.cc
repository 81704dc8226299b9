#include "bench/ideal.h"

#include <algorithm>

namespace sluice::bench {
namespace {

constexpr double kernels = 0.9;  // of a memory's rate

constexpr double attention = 1 / 6.0;  // of the rate of products of many tokens, as measured on an H200

struct Bytes {
  double weights = 0, ffn = 0, kv_cell = 0;             // ffn: of a layer
  double multiplications = 0, attention_of_a_cell = 0;  // of one token
};

Bytes bytes_of(const ModelShape& s) {
  Bytes b;
  for (const ShapeTensor& t : tensors_of(s)) {
    const bool table = t.name == "token_embd.weight" && !s.tied;  // single rows
    if (!t.is_vector() && !table) b.weights += static_cast<double>(t.bytes());
    if (t.name.find("ffn_") != std::string::npos) b.ffn += static_cast<double>(t.bytes()) / s.n_layers;
    if (!t.is_vector() && t.name.starts_with("blk")) b.multiplications += static_cast<double>(t.rows * t.cols);
  }
  b.attention_of_a_cell = 2.0 * s.n_layers * s.n_heads * s.head_dim;
  b.kv_cell = 2.0 * s.n_layers * s.n_kv_heads * s.head_dim * 2;
  return b;
}

const LinkRates& link_to(const Machine& m) {
  return *std::find_if(m.links.begin(), m.links.end(), [&](const LinkRates& l) { return l.to == m.devices[1].id; });
}

// Bytes that do not fit the VRAM, and of these what does not fit the RAM.
double outside(const Bytes& b, const IdealCase& c) {
  return std::max(0.0, b.weights + b.kv_cell * c.context - static_cast<double>(c.vram));
}
double from_disk(const Bytes& b, const IdealCase& c) {
  return std::max(0.0, outside(b, c) - static_cast<double>(c.ram));
}

}  // namespace

double ideal_token_s(const ModelShape& shape, const Machine& m, const IdealCase& c) {
  const Bytes b = bytes_of(shape);
  const LinkRates& link = link_to(m);
  const double cpu = kernels * m.devices[0].memory_gb_s * link.compute_beside * 1e9, pcie = link.beside_gb_s * 1e9;
  const double out = outside(b, c), q = pcie / (pcie + cpu), disk = from_disk(b, c) / (m.tier("disk")->read_gb_s * 1e9);
  const double on_gpu = (b.weights + b.kv_cell * c.depth - out + q * out) / (kernels * m.devices[1].memory_gb_s * 1e9);
  const double hand_over = (2 * link.latency_us + m.devices[1].call_us) * 1e-6;
  return on_gpu + std::max(out / (cpu + pcie), disk) + 2 * hand_over * (1 - q) * out / b.ffn;
}

double ideal_prompt_s(const ModelShape& shape, const Machine& m, const IdealCase& c, uint32_t n) {
  const Bytes b = bytes_of(shape);
  const double link = outside(b, c) / (link_to(m).gb_s * 1e9),
               disk = from_disk(b, c) / (m.tier("disk")->read_gb_s * 1e9);
  const double products = n * b.multiplications, attends = n * (n + 1.0) / 2 * b.attention_of_a_cell / attention;
  return std::max({link, disk, 2 * (products + attends) / (m.devices[1].matmul_gflops.at(DType::bf16) * 1e9)});
}

}  // namespace sluice::bench
