// GraphBuilder: what the architectures share: reading a GGUF file's keys and tensors into a Graph.
//
// An architecture is a function (GgufFile, files) -> Graph in a file of its own, listed in models.cc.
// Metadata names: llama.cpp's gguf-py constants.py; see docs/formats.md.
#pragma once

#include <optional>
#include <span>

#include "core/graph.h"
#include "storage/gguf.h"

namespace sluice::engine {

// Which keys describe a rotary embedding.
struct RopeKeys {
  bool pairs = true;  // (2i, 2i+1); otherwise halves
  const char* base = "rope.freq_base";
  float default_base = 10000.0f;
  bool scaled = true;  // by the rope.scaling keys and the rope_freqs tensor
};

class GraphBuilder {
 public:
  // `files[i]` is part i of the model in a Store.
  GraphBuilder(const storage::GgufFile& gguf, std::span<const FileId> files)
      : gguf_(gguf), files_(files), made_(gguf.tensors().size()) {}

  Graph& graph() { return graph_; }
  const storage::GgufFile& gguf() const { return gguf_; }

  // Reads what all decoders have: hidden size, layers, heads, vocabulary, context.
  Status read_sizes();

  // "<architecture>.<name>", and its value.
  std::string gguf_key(std::string_view name) const { return graph_.architecture + "." + std::string(name); }
  template <class T>
  Result<T> key(std::string_view name) const {
    return gguf_.get<T>(gguf_key(name));
  }
  template <class T>
  Result<T> key_or(std::string_view name, T fallback) const {
    return gguf_.get_or<T>(gguf_key(name), fallback);
  }

  // A tensor of the file as a matrix (or vector); not_found names it.
  Result<TensorId> tensor(const std::string& name);
  // Invalid where the file has none of that name.
  Result<TensorId> optional_tensor(const std::string& name);

  Result<RopeSpec> rope(const RopeKeys& keys) const;

  // The head: output_norm and output, which is the embedding `table` where the file has none.
  Status add_head(TensorId table, float eps, float softcap = 0);

  Result<Graph> finish();

 private:
  Status scale_freqs(RopeSpec& rope, float base) const;
  Status apply_yarn(RopeSpec& rope, double factor, double base) const;
  Status divide_by_tensor(RopeSpec& rope) const;

  const storage::GgufFile& gguf_;
  std::span<const FileId> files_;
  std::vector<TensorId> made_;  // by index in the file
  Graph graph_;
};

}  // namespace sluice::engine
