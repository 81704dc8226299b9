#include <memory>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "apps/input.h"
#include "apps/interrupt.h"
#include "apps/json.h"
#include "apps/open.h"
#include "apps/output.h"
#include "apps/print.h"

namespace sluice::apps {
namespace {

Result<std::vector<int32_t>> prompt_tokens(const Engine& engine, const Session& session, const std::string& text) {
  SLUICE_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, with_prefix(engine, text, true));
  if (tokens.empty())
    return Status(Code::invalid_argument, "the prompt is empty, and this model begins a text with no token of its own");
  SLUICE_RETURN_IF_ERROR(check_fits(tokens.size(), session.context()));
  return tokens;
}

// What a reader of plain text has to know about the end of it.
void explain_end(const Generation& generation, const Session& session, int signal) {
  const std::string count = std::to_string(generation.tokens.size()) + " tokens";
  if (signal != 0) print_note(std::string("stopped by ") + signal_name(signal) + " after " + count);
  else if (generation.stop_reason == "context")
    print_warning("the context of " + std::to_string(session.context()) + " tokens is full: the text ends after " +
                  count + "; a larger -c makes room");
}

}  // namespace

Result<int> run(const RunOptions& options) {
  SLUICE_ASSIGN_OR_RETURN(std::string text, read_text(options.text, max_text));
  if (!options.text.has_prompt) text = without_last_newline(std::move(text));
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine, open_engine(options.engine, options.json));
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, engine->new_session());
  SLUICE_ASSIGN_OR_RETURN(const std::vector<int32_t> prompt, prompt_tokens(*engine, *session, text));
  if (!options.json) print_note(plan_summary(engine->plan_report()));

  Interrupts interrupts;
  Output output;
  const auto stream = [&](int32_t, std::string_view piece) {
    return (options.json || output.write(piece)) && interrupts.pending() == 0;
  };
  auto generation = [&] {
    const CancelOnInterrupt cancel(*session);
    return session->generate(prompt, options.generate, stream);
  }();
  const int signal = interrupts.take();
  if (signal != 0 && generation.status().code() == Code::cancelled) generation = Generation{};  // while in the prompt
  if (!generation.ok()) {
    output.end_line();
    return generation.status();
  }
  if (signal != 0) generation->stop_reason = "cancelled";
  generation->prompt_tokens = static_cast<uint32_t>(prompt.size());

  if (options.json) {
    output.write(run_json(*generation, *engine) + "\n");
  } else {
    output.end_line();
    explain_end(*generation, *session, signal);
  }
  if (options.stats) print_block(run_statistics(*engine, *generation));
  return output.finish(signal != 0 ? exit_code(signal) : 0);
}

}  // namespace sluice::apps
