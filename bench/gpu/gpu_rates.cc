// sluice_bench_gpu: every GPU kernel's time by type, shape and tokens, beside the rates of the card's memory (GB/s)
// and tensor cores (TFLOP/s), measured first.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>

#include "bench/gpu/rig.h"

using namespace sluice;

namespace {

Status run(bench::Rig& rig, const std::string& part, const std::string& type) {
  const auto wanted = [&](const char* name) { return part.empty() || part == name; };
  if (wanted("layer")) SLUICE_RETURN_IF_ERROR(bench::bench_layer(rig));
  if (wanted("launches")) SLUICE_RETURN_IF_ERROR(bench::bench_launches(rig));
  if (wanted("elementwise")) SLUICE_RETURN_IF_ERROR(bench::bench_elementwise(rig));
  if (wanted("attention")) SLUICE_RETURN_IF_ERROR(bench::bench_attention(rig));
  if (wanted("products")) SLUICE_RETURN_IF_ERROR(bench::bench_products(rig, type));
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  int device = 0;
  uint32_t repeats = 9;
  std::string json, part, type;
  CLI::App app("Times the GPU's kernels.", "sluice_bench_gpu");
  app.add_option("--device", device, "As CUDA counts them")->capture_default_str();
  app.add_option("--repeats", repeats, "Replays of which the median counts")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--json", json, "A file for all figures");
  app.add_option("--only", part, "One part")
      ->check(CLI::IsMember({"layer", "launches", "elementwise", "attention", "products"}));
  app.add_option("--type", type, "Products with weights of one type, for example Q4_K");
  CLI11_PARSE(app, argc, argv);
  auto rig = bench::Rig::create(device);
  Status status = rig.status();
  if (rig.ok()) {
    (*rig)->repeats = repeats;
    status = run(**rig, part, type);
  }
  if (!status.ok()) {
    std::fprintf(stderr, "sluice_bench_gpu: %s\n", status.message().c_str());
    return 1;
  }
  if (!json.empty()) {
    std::ofstream file(json);
    file << (*rig)->results().dump(1) << '\n';
    if (!file.flush()) {
      std::fprintf(stderr, "sluice_bench_gpu: cannot write %s\n", json.c_str());
      return 1;
    }
  }
  return 0;
}
