#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "apps/input.h"
#include "apps/interrupt.h"
#include "apps/open.h"
#include "apps/output.h"
#include "apps/print.h"

namespace sluice::apps {
namespace {

constexpr std::string_view help =
    "A line is a message. /reset forgets the conversation, /exit or Ctrl-D leaves, Ctrl-C stops an answer.";

// A conversation: its messages, and the tokens of it that the session holds.
class Conversation {
 public:
  Conversation(const Engine& engine, Session& session, const ChatOptions& options)
      : engine_(engine), session_(session), options_(options) {}

  // Forgets all but the system message; fails where the template cannot be used.
  Status reset();

  // Appends `text` and the model's answer, which it streams to `output`. Where it fails, and where nothing
  // of an answer came, the conversation is as before.
  Status turn(const std::string& text, Interrupts& interrupts, Output& output);

 private:
  Result<std::vector<int32_t>> render() const;
  Result<Generation> answer(const std::vector<int32_t>& tokens, Interrupts& interrupts, Output& output);
  Status keep(size_t n);
  void explain_end(const Generation& generation) const;

  const Engine& engine_;
  Session& session_;
  const ChatOptions& options_;
  std::vector<Message> messages_;
  std::vector<int32_t> held_;
};

Status Conversation::reset() {
  messages_.clear();
  if (!options_.system.empty()) messages_.push_back({"system", options_.system});
  messages_.push_back({"user", "x"});
  const Status usable = render().status();
  messages_.pop_back();
  if (usable.code() == Code::not_found)
    return Status(Code::not_found, usable.message() + "; `sluice run` completes raw text");
  SLUICE_RETURN_IF_ERROR(usable);
  return keep(0);
}

Result<std::vector<int32_t>> Conversation::render() const {
  SLUICE_ASSIGN_OR_RETURN(const std::string text, engine_.apply_template(messages_, true));
  return with_prefix(engine_, text, true);
}

// Makes the session hold the first n of the tokens it holds.
Status Conversation::keep(size_t n) {
  n = std::min<size_t>({n, held_.size(), session_.length()});
  if (session_.length() != n) SLUICE_RETURN_IF_ERROR(session_.truncate(static_cast<uint32_t>(n)));
  held_.resize(n);
  return {};
}

// Only what the session does not hold yet is computed; one token at least, for its logits.
Result<Generation> Conversation::answer(const std::vector<int32_t>& tokens, Interrupts& interrupts, Output& output) {
  const auto differ = std::mismatch(held_.begin(), held_.end(), tokens.begin(), tokens.end()).second;
  const auto common = std::min<size_t>(static_cast<size_t>(differ - tokens.begin()), tokens.size() - 1);
  SLUICE_RETURN_IF_ERROR(keep(common));
  const CancelOnInterrupt cancel(session_);
  return session_.generate(
      std::span(tokens).subspan(held_.size()), options_.generate,
      [&](int32_t, std::string_view piece) { return output.write(piece) && interrupts.pending() == 0; });
}

Status Conversation::turn(const std::string& text, Interrupts& interrupts, Output& output) {
  messages_.push_back({"user", text});
  const auto undo = [this](Status why) {
    messages_.pop_back();
    return why;
  };
  auto tokens = render();
  if (!tokens.ok()) return undo(tokens.status());
  if (tokens->size() >= session_.context()) {
    return undo(Status(Code::over_budget, "with this message the conversation has " + std::to_string(tokens->size()) +
                                              " tokens and the context holds " + std::to_string(session_.context()) +
                                              ": /reset starts anew, a larger -c makes room"));
  }
  auto generation = answer(*tokens, interrupts, output);
  output.end_line();
  if (!generation.ok()) {
    keep(0).ignore();
    return undo(generation.status());
  }
  held_ = std::move(*tokens);
  held_.insert(held_.end(), generation->tokens.begin(), generation->tokens.end());
  SLUICE_RETURN_IF_ERROR(keep(held_.size()));
  explain_end(*generation);
  messages_.push_back({"assistant", std::move(generation->text)});
  return {};
}

void Conversation::explain_end(const Generation& generation) const {
  if (generation.stop_reason == "context") {
    print_warning("the context of " + std::to_string(session_.context()) +
                  " tokens is full: the answer ends here. /reset starts anew, a larger -c makes room");
  } else if (generation.stop_reason == "length") {
    print_note("(the answer ends after " + std::to_string(generation.tokens.size()) + " tokens, as -n asks)");
  }
}

// The loop around it: prompts, commands, signals.
class Repl {
 public:
  Repl(Conversation& conversation, Interrupts& interrupts)
      : conversation_(conversation),
        interrupts_(interrupts),
        reader_(STDIN_FILENO, interrupts.fd()),
        terminal_(::isatty(STDIN_FILENO) == 1) {}

  Result<int> loop();

 private:
  Status handle(const std::string& line);
  bool leave_on_signal();

  Conversation& conversation_;
  Interrupts& interrupts_;
  LineReader reader_;
  Output output_;
  bool terminal_;
  bool leaving_ = false;
  bool asked_to_leave_ = false;  // Ctrl-C was the last thing that came at the prompt
  int code_ = 0;
};

Result<int> Repl::loop() {
  if (terminal_) print_note(help);
  std::string line;
  while (!leaving_) {
    if (terminal_) print_block("\n> ");
    SLUICE_ASSIGN_OR_RETURN(const LineReader::Got got, reader_.next(line));
    if (got == LineReader::Got::end) break;
    if (got == LineReader::Got::woken) {
      leaving_ = leave_on_signal();
      continue;
    }
    asked_to_leave_ = false;
    SLUICE_RETURN_IF_ERROR(handle(line));
    SLUICE_ASSIGN_OR_RETURN(const int written, output_.finish(code_));
    if (!output_.write("")) return written;
  }
  if (terminal_) print_block("\n");
  return code_;
}

// A first Ctrl-C at the prompt only says how to leave: it may have been meant for an answer just ended.
bool Repl::leave_on_signal() {
  const int signal = interrupts_.take();
  if (signal == 0) return false;
  const bool leave = asked_to_leave_ || !terminal_ || signal_name(signal) != std::string_view("Ctrl-C");
  if (leave && (!terminal_ || !asked_to_leave_)) code_ = exit_code(signal);
  if (!leave) print_block("\n(Ctrl-C again, Ctrl-D or /exit leaves)");
  asked_to_leave_ = true;
  return leave;
}

Status Repl::handle(const std::string& line) {
  if (line.find_first_not_of(" \t\r") == std::string::npos) return {};
  if (line == "/exit" || line == "/quit") {
    leaving_ = true;
    return {};
  }
  if (line == "/help") {
    print_note(help);
    return {};
  }
  if (line == "/reset") return conversation_.reset();

  const Status status = conversation_.turn(line, interrupts_, output_);
  const int signal = interrupts_.take();
  if (signal != 0 && signal_name(signal) != std::string_view("Ctrl-C")) {
    leaving_ = true;
    code_ = exit_code(signal);
  }
  if (status.code() == Code::over_budget) {
    print_error(status.message());
    if (!terminal_) code_ = 1;
    return {};
  }
  return status.code() == Code::cancelled ? Status() : status;
}

}  // namespace

Result<int> chat(const ChatOptions& options) {
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine, open_engine(options.engine, false));
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, engine->new_session());
  Conversation conversation(*engine, *session, options);
  SLUICE_RETURN_IF_ERROR(conversation.reset());
  Interrupts interrupts;
  return Repl(conversation, interrupts).loop();
}

}  // namespace sluice::apps
