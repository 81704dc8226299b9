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

class GraphBuilder {
 public:
  // `files[i]` is part i of the model in a Store.
  GraphBuilder(const storage::GgufFile& gguf, std::span<const FileId> files)
      : gguf_(gguf), files_(files), made_(gguf.tensors().size()) {}

  Graph& graph() { return graph_; }
  const storage::GgufFile& gguf() const { return gguf_; }

  // Reads what all decoders have: hidden size, layers, heads, vocabulary, context.
  Status read_sizes();

  // Value of "<architecture>.<name>".
  template <class T>
  Result<T> key(std::string_view name) const {
    return gguf_.get<T>(graph_.architecture + "." + std::string(name));
  }
  template <class T>
  Result<T> key_or(std::string_view name, T fallback) const {
    return gguf_.get_or<T>(graph_.architecture + "." + std::string(name), fallback);
  }

  // A tensor of the file as a matrix (or vector); not_found names it.
  Result<TensorId> tensor(const std::string& name);
  // Invalid where the file has none of that name.
  Result<TensorId> optional_tensor(const std::string& name);

  // The rotary embedding that the keys and the rope_freqs tensor describe.
  Result<RopeSpec> rope(bool pairs, float default_base = 10000.0f) const;

  Result<Graph> finish();

 private:
  Status scale_freqs(RopeSpec& rope) const;
  Status apply_yarn(RopeSpec& rope, double factor, double base) const;
  Status divide_by_tensor(RopeSpec& rope) const;

  const storage::GgufFile& gguf_;
  std::span<const FileId> files_;
  std::vector<TensorId> made_;  // by index in the file
  Graph graph_;
};

}  // namespace sluice::engine
