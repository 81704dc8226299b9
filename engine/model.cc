#include "engine/model.h"

#include <algorithm>

#include "core/error.h"
#include "engine/models/models.h"

namespace sluice::engine {
namespace {

Result<TokenId> special_id(const storage::GgufFile& gguf, const char* name) {
  const std::string key = "tokenizer.ggml." + std::string(name) + "_token_id";
  SLUICE_ASSIGN_OR_RETURN(const auto id, gguf.get_or<int64_t>(key, -1));
  if (id == -1 || id == UINT32_MAX) return TokenId{-1};
  if (id < 0 || id > INT32_MAX) return error(Code::corrupt, "{}: {} is {}", gguf.path(), key, id);
  return static_cast<TokenId>(id);
}

Result<SpecialIds> special_ids(const storage::GgufFile& gguf) {
  SpecialIds ids;
  SLUICE_ASSIGN_OR_RETURN(ids.bos, special_id(gguf, "bos"));
  SLUICE_ASSIGN_OR_RETURN(ids.eos, special_id(gguf, "eos"));
  SLUICE_ASSIGN_OR_RETURN(ids.eot, special_id(gguf, "eot"));
  SLUICE_ASSIGN_OR_RETURN(ids.unknown, special_id(gguf, "unknown"));
  SLUICE_ASSIGN_OR_RETURN(ids.padding, special_id(gguf, "padding"));
  return ids;
}

Result<std::vector<std::string_view>> views(const storage::GgufFile& gguf, const char* key, bool required) {
  if (!required && !gguf.has(key)) return std::vector<std::string_view>();
  SLUICE_ASSIGN_OR_RETURN(const storage::GgufStrings strings, gguf.get_strings(key));
  return std::vector<std::string_view>(strings.begin(), strings.end());
}

template <class T>
Result<std::vector<T>> numbers(const storage::GgufFile& gguf, const char* key, uint64_t most) {
  if (!gguf.has(key)) return std::vector<T>();
  return gguf.get_array<T>(key, most);
}

Result<std::optional<bool>> flag(const storage::GgufFile& gguf, const char* key) {
  if (!gguf.has(key)) return std::optional<bool>();
  SLUICE_ASSIGN_OR_RETURN(const bool value, gguf.get<bool>(key));
  return std::optional<bool>(value);
}

// A value for people; arrays are cut after a few entries.
std::string text_of(const storage::GgufValue& value) {
  if (const auto s = value.as_string()) return std::string(*s);
  if (const auto b = value.as_bool()) return *b ? "true" : "false";
  if (const auto i = value.as_signed()) return std::to_string(*i);
  if (const auto u = value.as_unsigned()) return std::to_string(*u);
  if (const auto d = value.as_double()) return fmt::format("{:g}", *d);
  const auto array = value.as_array();
  if (!array) return "?";
  constexpr uint64_t shown = 6;
  std::string out = "[";
  if (array->type() == storage::GgufType::string) {
    uint64_t i = 0;
    for (const std::string_view s : array->strings()) {
      if (i++ == shown) break;
      out += (i > 1 ? ", " : "") + std::string(s.substr(0, 40));
    }
  } else {
    for (uint64_t i = 0; i < std::min(array->size(), shown); ++i) out += (i > 0 ? ", " : "") + text_of((*array)[i]);
  }
  return out + (array->size() > shown ? fmt::format(", … {} in all]", array->size()) : "]");
}

}  // namespace

uint64_t Model::memory_bytes() const {
  uint64_t bytes = tokenizer->memory_bytes() + chat_template.size();
  for (const TensorSpec& t : graph.tensors) bytes += sizeof(t) + t.name.capacity();
  return bytes + graph.ops.size() * sizeof(Op);
}

Result<std::unique_ptr<Tokenizer>> open_tokenizer(const storage::GgufFile& gguf) {
  TokenizerConfig config;
  SLUICE_ASSIGN_OR_RETURN(config.model, gguf.get<std::string_view>("tokenizer.ggml.model"));
  SLUICE_ASSIGN_OR_RETURN(config.pre, gguf.get_or<std::string_view>("tokenizer.ggml.pre", ""));
  SLUICE_ASSIGN_OR_RETURN(const auto tokens, views(gguf, "tokenizer.ggml.tokens", true));
  SLUICE_ASSIGN_OR_RETURN(const auto merges, views(gguf, "tokenizer.ggml.merges", false));
  SLUICE_ASSIGN_OR_RETURN(const auto types, numbers<int32_t>(gguf, "tokenizer.ggml.token_type", tokens.size()));
  SLUICE_ASSIGN_OR_RETURN(const auto scores, numbers<float>(gguf, "tokenizer.ggml.scores", tokens.size()));
  SLUICE_ASSIGN_OR_RETURN(config.ids, special_ids(gguf));
  SLUICE_ASSIGN_OR_RETURN(config.add_bos, flag(gguf, "tokenizer.ggml.add_bos_token"));
  SLUICE_ASSIGN_OR_RETURN(config.add_eos, flag(gguf, "tokenizer.ggml.add_eos_token"));
  SLUICE_ASSIGN_OR_RETURN(config.add_space_prefix, flag(gguf, "tokenizer.ggml.add_space_prefix"));
  config.tokens = tokens;
  config.token_types = types;
  config.scores = scores;
  config.merges = merges;
  auto tokenizer = make_tokenizer(config);
  if (!tokenizer.ok()) return tokenizer.status().with_context(gguf.path());
  return tokenizer;
}

Result<Model> open_model(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const storage::GgufFile gguf, storage::GgufFile::open(path));
  Model model;
  std::vector<FileId> files;
  for (const storage::GgufPart& part : gguf.parts()) {
    files.push_back(FileId{static_cast<uint32_t>(files.size())});
    model.files.push_back(part.path);
    model.file_bytes += part.bytes;
  }
  SLUICE_ASSIGN_OR_RETURN(model.graph, build_graph(gguf, files));
  SLUICE_ASSIGN_OR_RETURN(model.tokenizer, open_tokenizer(gguf));
  if (model.tokenizer->vocab().size() > model.graph.n_vocab)
    return error(Code::corrupt, "{}: {} tokens but only {} rows of token_embd.weight", path,
                 model.tokenizer->vocab().size(), model.graph.n_vocab);
  SLUICE_ASSIGN_OR_RETURN(const auto chat_template, gguf.get_or<std::string_view>("tokenizer.chat_template", ""));
  model.chat_template = chat_template;
  return model;
}

Result<ModelReport> inspect_model(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const storage::GgufFile gguf, storage::GgufFile::open(path));
  ModelReport report;
  report.path = path;
  SLUICE_ASSIGN_OR_RETURN(report.architecture, gguf.get_or<std::string_view>("general.architecture", ""));
  SLUICE_ASSIGN_OR_RETURN(report.name, gguf.get_or<std::string_view>("general.name", ""));
  for (const storage::GgufPart& part : gguf.parts()) report.files.emplace_back(part.path, part.bytes);
  for (const storage::GgufKey& key : gguf.keys()) report.metadata.emplace_back(key.name, text_of(key.value));
  for (const storage::GgufTensor& t : gguf.tensors()) {
    TensorReport tensor{std::string(t.name),      std::string(info(t.dtype).name), {}, t.bytes, t.offset,
                        gguf.parts()[t.file].path};
    tensor.shape.assign(t.dims.begin(), t.dims.begin() + t.n_dims);
    report.tensor_bytes += t.bytes;
    report.parameters += t.elements();
    report.tensors.push_back(std::move(tensor));
  }
  return report;
}

}  // namespace sluice::engine
