// The architectures that Sluice runs: from a GGUF file to a Graph.
#pragma once

#include <span>

#include "core/graph.h"
#include "storage/gguf.h"

namespace sluice::engine {

// unsupported names the architecture; the other errors name file, key or tensor. `files[i]` is part i of
// the model in the Store that will read it.
Result<Graph> build_graph(const storage::GgufFile& gguf, std::span<const FileId> files);

// Llama 2 and 3, Mistral, SmolLM2: arch "llama" without experts.
Result<Graph> build_llama(const storage::GgufFile& gguf, std::span<const FileId> files);

// Gemma 3, the text models: arch "gemma3".
Result<Graph> build_gemma3(const storage::GgufFile& gguf, std::span<const FileId> files);

}  // namespace sluice::engine
