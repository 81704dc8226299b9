#include "apps/open.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "apps/output.h"

namespace sluice::apps {
namespace {

// One line that is written over, and gone when all is loaded.
void show_progress(uint64_t done, uint64_t total) {
  if (total == 0) return;
  char line[64];
  const int n = done < total ? std::snprintf(line, sizeof line, "\rloading %3.0f %%",
                                             100 * static_cast<double>(done) / static_cast<double>(total))
                             : std::snprintf(line, sizeof line, "\r\x1b[K");
  const ssize_t ignored = ::write(STDERR_FILENO, line, static_cast<size_t>(n));
  (void)ignored;
}

}  // namespace

Result<std::unique_ptr<Engine>> open_engine(EngineOptions options, bool quiet) {
  options.warn = print_warning;
  if (!quiet && ::isatty(STDERR_FILENO) == 1) options.progress = show_progress;
  return Engine::open(options);
}

Result<std::vector<int32_t>> with_prefix(const Engine& engine, std::string_view text, bool special) {
  SLUICE_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, engine.tokenize(text, special));
  const std::vector<int32_t> prefix = engine.prefix();
  const bool there =
      special && tokens.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), tokens.begin());
  if (!there) tokens.insert(tokens.begin(), prefix.begin(), prefix.end());
  return tokens;
}

Status check_fits(size_t tokens, uint32_t context) {
  if (tokens <= context) return {};
  return Status(Code::invalid_argument, "the prompt has " + std::to_string(tokens) + " tokens and the context holds " +
                                            std::to_string(context) + "; shorten it or give a larger -c");
}

}  // namespace sluice::apps
