// The GGUF reader, and what makes a model of a file: any bytes are a Status or a sound description.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "engine/model.h"
#include "engine/models/models.h"
#include "storage/gguf.h"

namespace {

using namespace sluice;

void require(bool holds) {
  if (!holds) std::abort();
}

// Every view of the file is read to its end; tensors lie within it.
void read_all(const storage::GgufFile& gguf, uint64_t file_bytes) {
  uint64_t sum = 0;
  for (const storage::GgufKey& key : gguf.keys()) {
    sum += key.name.size() + key.value.describe_type().size();
    require(gguf.find(key.name) != nullptr);
    const auto array = key.value.as_array();
    if (!array) continue;
    if (array->type() == storage::GgufType::string) {
      for (const std::string_view text : array->strings())
        for (const char c : text) sum += static_cast<unsigned char>(c);
    } else {
      for (uint64_t i = 0; i < array->size(); ++i) sum += static_cast<uint64_t>((*array)[i].as_signed().value_or(1));
    }
  }
  for (const storage::GgufTensor& t : gguf.tensors()) {
    require(t.offset <= file_bytes && t.bytes <= file_bytes - t.offset);
    require(gguf.find_tensor(t.name) != nullptr);
  }
  volatile uint64_t sink = sum;
  (void)sink;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  storage::GgufLimits limits;
  limits.parts = 1;
  const auto gguf = storage::GgufFile::parse("fuzz", std::as_bytes(std::span(data, size)), limits);
  if (!gguf.ok()) {
    require(!gguf.status().message().empty());
    return 0;
  }
  read_all(*gguf, size);
  const FileId file{0};
  const auto graph = engine::build_graph(*gguf, {&file, 1});
  if (graph.ok()) require(validate(*graph).ok());
  const auto tokenizer = engine::open_tokenizer(*gguf);
  if (tokenizer.ok()) (void)(*tokenizer)->encode("Hello, w\xC3\xB6rld", {true, true});
  return 0;
}
