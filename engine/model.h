// Model: what a GGUF file says: the Graph, the tokenizer, the chat template. No weights.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/graph.h"
#include "engine/text/tokenizer.h"
#include "sluice/report.h"
#include "storage/gguf.h"

namespace sluice::engine {

struct Model {
  Graph graph;
  std::unique_ptr<Tokenizer> tokenizer;
  std::string chat_template;       // empty where the file has none
  std::vector<std::string> files;  // part i is FileId{i} in the Graph
  uint64_t file_bytes = 0;

  uint64_t memory_bytes() const;
};

// Reads the description. A Store that will read the tensors opens `files` first, in their order.
Result<Model> open_model(const std::string& path);

Result<std::unique_ptr<Tokenizer>> open_tokenizer(const storage::GgufFile& gguf);

Result<ModelReport> inspect_model(const std::string& path);

}  // namespace sluice::engine
