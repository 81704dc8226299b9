// make_gguf: writes a synthetic model file of a real shape, for benchmarks.
//
//   make_gguf --shape 8b out.gguf
#include <CLI/CLI.hpp>
#include <cstdio>

#include "bench/synthetic.h"

int main(int argc, char** argv) {
  using namespace sluice::bench;
  std::string name = "1b", path;
  uint32_t layers = 0, vocab = 0;
  uint64_t seed = 1;
  CLI::App app("Writes a GGUF file of a real model's shape with random weights, at Q4_K_M.", "make_gguf");
  app.add_option("--shape", name, "1b, 8b, 70b or tiny")->capture_default_str();
  app.add_option("--layers", layers, "Layers; as many as the model has");
  app.add_option("--vocab", vocab, "Tokens of the vocabulary; as many as the model has");
  app.add_option("--seed", seed, "Of the weights")->capture_default_str();
  app.add_option("FILE", path, "The file to write")->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  auto shape = shape_named(name);
  if (!shape) {
    std::fprintf(stderr, "make_gguf: no shape is called '%s'; there are 1b, 8b, 70b and tiny\n", name.c_str());
    return 2;
  }
  if (layers != 0) shape->n_layers = layers;
  if (vocab != 0) shape->n_vocab = vocab;
  const auto written = write_synthetic(*shape, path, seed);
  if (!written.ok()) {
    std::fprintf(stderr, "make_gguf: %s\n", written.status().message().c_str());
    return 1;
  }
  std::printf("%s: %llu bytes in %.1f s, %.2f GB/s\n", path.c_str(), static_cast<unsigned long long>(written->bytes),
              written->seconds, static_cast<double>(written->bytes) / written->seconds * 1e-9);
  return 0;
}
