#include "engine/models/models.h"

#include "core/error.h"

namespace sluice::engine {

Result<Graph> build_graph(const storage::GgufFile& gguf, std::span<const FileId> files) {
  SLUICE_ASSIGN_OR_RETURN(const auto architecture, gguf.get<std::string_view>("general.architecture"));
  if (architecture == "llama") return build_llama(gguf, files);
  if (architecture == "gemma3") return build_gemma3(gguf, files);
  return error(Code::unsupported, "{}: architecture '{}' is not supported (supported: llama, gemma3)", gguf.path(),
               architecture);
}

}  // namespace sluice::engine
