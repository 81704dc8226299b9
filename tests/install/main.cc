// Completes a few tokens with a model file: consumer MODEL.
#include <sluice/engine.h>

#include <iostream>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  sluice::EngineOptions options;
  options.model = argv[1];
  options.ram = 64 << 20;
  options.context = 32;
  auto engine = sluice::Engine::open(options);
  if (!engine.ok()) {
    std::cerr << engine.status().message() << "\n";
    return 1;
  }
  auto session = (*engine)->new_session();
  if (!session.ok()) return 1;
  sluice::GenerateOptions generate;
  generate.sampling.temperature = 0;
  generate.max_tokens = 4;
  generate.ignore_end = true;
  const auto made = (*session)->generate(std::vector<int32_t>{1, 2, 3}, generate);
  if (!made.ok() || made->tokens.size() != 4) return 1;
  std::cout << "sluice " << sluice::version << " linked\n";
}
