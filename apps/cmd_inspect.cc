#include <string>

#include "apps/commands.h"
#include "apps/json.h"
#include "apps/output.h"
#include "apps/print.h"
#include "sluice/engine.h"

namespace sluice::apps {
namespace {

std::string shape_text(const std::vector<uint64_t>& shape) {
  std::string out;
  for (const uint64_t n : shape) out += (out.empty() ? "" : " x ") + std::to_string(n);
  return out;
}

std::string describe(const ModelReport& model) {
  std::string out = printable(model.path) + ": " + printable(model.architecture) + ", " + printable(model.name) + "\n" +
                    std::to_string(model.tensors.size()) + " tensors, " + std::to_string(model.parameters) +
                    " parameters, " + format_size(model.tensor_bytes) + "\n";
  Table files("lr");
  for (const auto& [path, bytes] : model.files) files.add({"  " + printable(path), format_size(bytes)});
  out += files.to_string() + "\n";

  Table metadata("ll");
  for (const auto& [key, value] : model.metadata) metadata.add({printable(key), printable(value)});
  out += metadata.to_string() + "\n";

  Table tensors("lllrr");
  tensors.add({"tensor", "type", "shape", "bytes", "at"});
  for (const TensorReport& t : model.tensors)
    tensors.add({printable(t.name), t.type, shape_text(t.shape), std::to_string(t.bytes), std::to_string(t.offset)});
  return out + tensors.to_string();
}

}  // namespace

Result<int> inspect(const InspectOptions& options) {
  SLUICE_ASSIGN_OR_RETURN(const ModelReport model, Engine::inspect(options.model));
  Output output;
  output.write(options.json ? model_json(model) + "\n" : describe(model));
  return output.finish();
}

}  // namespace sluice::apps
