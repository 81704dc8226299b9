#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "apps/ids_file.h"
#include "apps/input.h"
#include "apps/interrupt.h"
#include "apps/json.h"
#include "apps/open.h"
#include "apps/output.h"
#include "apps/print.h"
#include "apps/text.h"

namespace sluice::apps {
namespace {

constexpr uint32_t default_window = 512;
constexpr uint32_t judged_per_step = 32;  // rows of logits; each takes 4 bytes for every token of the vocabulary

// Mean and spread of what was judged.
class Tally {
 public:
  void add(const std::vector<TokenScore>& scores) {
    for (const TokenScore& score : scores) {
      sum_ -= score.logprob;
      squares_ += score.logprob * score.logprob;
    }
    n_ += scores.size();
  }
  uint64_t n() const { return n_; }
  double perplexity() const { return std::exp(mean()); }
  // One standard error of perplexity().
  double error() const {
    if (n_ < 2) return 0;
    const double variance = squares_ / static_cast<double>(n_) - mean() * mean();
    return perplexity() * std::sqrt(std::max(0.0, variance) / static_cast<double>(n_ - 1));
  }

 private:
  double mean() const { return sum_ / static_cast<double>(n_); }

  double sum_ = 0, squares_ = 0;
  uint64_t n_ = 0;
};

EngineOptions scoring_options(EngineOptions options, uint32_t context) {
  options.context = context;
  options.logit_rows = options.batch == 0 ? judged_per_step : std::min(options.batch, judged_per_step);
  return options;
}

Result<std::vector<TokenScore>> judge(Session& session, std::span<const int32_t> tokens, uint32_t first,
                                      const Interrupts& interrupts) {
  SLUICE_RETURN_IF_ERROR(session.truncate(0));
  const CancelOnInterrupt cancel(session);
  if (interrupts.pending() != 0) return Status(Code::cancelled, "perplexity: interrupted");
  return session.score(tokens, first);
}

std::string summary(const Tally& tally) {
  return format("perplexity %.4f +/- %.4f over %llu tokens", tally.perplexity(), tally.error(),
                static_cast<unsigned long long>(tally.n()));
}

// In JSON, `start` and what follows it to the end of the object.
void print_result(Output& output, std::string_view start, bool json, const Tally& tally) {
  if (json) output.write(start);
  output.write(json ? perplexity_fields(tally.perplexity(), tally.n()) : summary(tally));
  output.write(json ? "}\n" : "\n");
}

// The text's tokens in windows of `window` that do not overlap, what is left over dropped.
Result<std::vector<int32_t>> text_tokens(const Engine& engine, const std::string& path, std::string text,
                                         uint32_t window) {
  SLUICE_ASSIGN_OR_RETURN(std::vector<int32_t> tokens,
                          with_prefix(engine, without_last_newline(std::move(text)), false));
  if (tokens.size() < window)
    return Status(Code::invalid_argument, path + ": has " + std::to_string(tokens.size()) +
                                              " tokens and a window takes " + std::to_string(window) +
                                              "; a longer text or a smaller -c is needed");
  return tokens;
}

Result<int> text_perplexity(const PerplexityOptions& options) {
  const uint32_t window = options.engine.context != 0 ? options.engine.context : default_window;
  SLUICE_ASSIGN_OR_RETURN(std::string text, read_file(options.file, max_text));
  SLUICE_ASSIGN_OR_RETURN(const auto engine, open_engine(scoring_options(options.engine, window), options.json));
  SLUICE_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, text_tokens(*engine, options.file, std::move(text), window));
  SLUICE_ASSIGN_OR_RETURN(const auto session, engine->new_session());
  const std::vector<int32_t> prefix = engine->prefix();
  const size_t all = tokens.size() / window;
  const size_t chunks = options.chunks != 0 ? std::min<size_t>(options.chunks, all) : all;

  const Interrupts interrupts;
  Tally tally;
  for (size_t i = 0; i < chunks; ++i) {
    const auto chunk = std::span(tokens).subspan(i * window, window);
    if (!prefix.empty()) chunk[0] = prefix[0];
    SLUICE_ASSIGN_OR_RETURN(const auto scores, judge(*session, chunk, window / 2 + 1, interrupts));
    tally.add(scores);
    if (!options.json)
      print_note("window " + std::to_string(i + 1) + " of " + std::to_string(chunks) + ": " + summary(tally));
  }
  Output output;
  print_result(output, "{", options.json, tally);
  return output.finish();
}

// Sequences go out as they are judged: the budget has no room for all of them.
Result<int> ids_perplexity(const PerplexityOptions& options) {
  SLUICE_ASSIGN_OR_RETURN(const IdSequences sequences, read_ids(options.ids));
  const uint32_t context = options.engine.context != 0 ? options.engine.context : sequences.longest();
  SLUICE_ASSIGN_OR_RETURN(const auto engine, open_engine(scoring_options(options.engine, context), options.json));
  SLUICE_RETURN_IF_ERROR(sequences.check(engine->n_vocab(), context));
  SLUICE_ASSIGN_OR_RETURN(const auto session, engine->new_session());

  const Interrupts interrupts;
  Output output;
  Tally tally;
  for (size_t i = 0; i < sequences.size(); ++i) {
    SLUICE_ASSIGN_OR_RETURN(const auto scores, judge(*session, sequences[i], 1, interrupts));
    tally.add(scores);
    if (options.json) {
      output.write(i == 0 ? "{\"sequences\":[" : ",");
      output.write(scores_json(scores));
    } else {
      print_note("sequence " + std::to_string(i + 1) + " of " + std::to_string(sequences.size()) + ": " +
                 summary(tally));
    }
  }
  print_result(output, "],", options.json, tally);
  return output.finish();
}

}  // namespace

Result<int> perplexity(const PerplexityOptions& options) {
  return options.ids.empty() ? text_perplexity(options) : ids_perplexity(options);
}

}  // namespace sluice::apps
