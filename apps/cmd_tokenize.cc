#include <memory>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "apps/input.h"
#include "apps/json.h"
#include "apps/output.h"
#include "sluice/engine.h"

namespace sluice::apps {

Result<int> tokenize(const TokenizeOptions& options) {
  SLUICE_ASSIGN_OR_RETURN(const std::string text, read_text(options.text, max_tokenized_text));
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenization> tokenization, Tokenization::open(options.model));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, tokenization->tokenize(text, true));
  std::string line;
  if (options.json) {
    line = tokens_json(tokens);
  } else {
    for (const int32_t token : tokens) line += (line.empty() ? "" : " ") + std::to_string(token);
  }
  Output output;
  output.write(line + "\n");
  return output.finish();
}

}  // namespace sluice::apps
