// Engine and Session: a model under a memory budget, and conversations with it.
//
//   EngineOptions options;
//   options.model = "model.gguf";
//   options.ram = 64 << 20;
//   auto engine = sluice::Engine::open(options);
//   auto session = (*engine)->new_session();
//   auto tokens = (*engine)->tokenize("Once upon a time", true);
//   (*session)->generate(*tokens, {}, [](int32_t, std::string_view text) { std::cout << text; return true; });
//
// Threads: an Engine's const functions may be called from any thread. Sessions of one engine share its
// hardware: their calls are serialized inside. One session is used by one thread at a time, but for
// cancel(), which any thread (or a signal handler) may call. Sessions must die before their Engine.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sluice/options.h"
#include "sluice/report.h"
#include "sluice/status.h"

namespace sluice {

inline constexpr const char* version = "0.1.0";

struct Message {
  std::string role, content;
};

// How one token was judged, given those before it.
struct TokenScore {
  int32_t id = 0;
  double logprob = 0;  // natural logarithm
  int32_t argmax = 0;
  float margin = 0;  // best logit minus second best
};

struct Generation {
  std::vector<int32_t> tokens;  // generated ones, without the one that ended it
  std::string text;
  std::string stop_reason;  // "end" (the model), "length", "context", "cancelled", "callback"
  uint32_t prompt_tokens = 0;
  double prefill_s = 0, decode_s = 0;
  double prefill_tok_s = 0, decode_tok_s = 0;
};

class Session {
 public:
  virtual ~Session() = default;

  // Tokens held, and the most that can be.
  virtual uint32_t length() const = 0;
  virtual uint32_t context() const = 0;

  // Appends tokens; nothing is appended if it fails. invalid_argument where they do not fit the context.
  virtual Status append(std::span<const int32_t> tokens) = 0;

  // Appends `prompt`, then samples until something stops it. `on_token` gets each token with the text
  // that is complete by now (never part of a character; may be empty) and ends it by returning false.
  // What was generated stays in the session. A prompt longer than the context is invalid_argument.
  virtual Result<Generation> generate(std::span<const int32_t> prompt, const GenerateOptions& options,
                                      const std::function<bool(int32_t, std::string_view)>& on_token = {}) = 0;

  // Appends `tokens` and judges tokens[first..] by what stands before them; first is at least 1.
  // EngineOptions::logit_rows bounds how many are judged in one step.
  virtual Result<std::vector<TokenScore>> score(std::span<const int32_t> tokens, uint32_t first) = 0;

  // Keeps the first n tokens.
  virtual Status truncate(uint32_t n) = 0;

  // A second session that begins with this one's content; shares its memory until either goes on.
  virtual Result<std::unique_ptr<Session>> fork() = 0;

  // Ends the running call soon (append and score fail with `cancelled`; generate returns what it has). No
  // effect on calls that begin later.
  virtual void cancel() = 0;
};

// A token to add to a session: Engine::decode.
struct Turn {
  Session* session = nullptr;
  int32_t token = 0;
};

class Engine {
 public:
  // Reads the model's description, plans, and loads what the plan keeps. over_budget names the least
  // budget that works.
  static Result<std::unique_ptr<Engine>> open(const EngineOptions& options);

  // What open() would do, without loading anything.
  static Result<PlanReport> plan(const EngineOptions& options);

  // Metadata and tensors of a file.
  static Result<ModelReport> inspect(const std::string& path);

  virtual ~Engine() = default;

  virtual Result<std::unique_ptr<Session>> new_session() = 0;

  // Appends one token to each of several sessions in one step, so that each weight is read once for all
  // of them, and hands out what the model expects next: on_logits(i, n_vocab() values) for turns[i], which
  // are those that the session would give alone and last for the call. Each session is one of this engine's
  // and stands there once, at most EngineOptions::logit_rows of them. If it fails none keeps its token. It
  // is one step, which Session::cancel does not end.
  virtual Status decode(std::span<const Turn> turns,
                        const std::function<void(size_t i, std::span<const float> logits)>& on_logits) = 0;

  // Hard budgets from now on, with the meaning of EngineOptions::ram and vram: 0 and `automatic` are judged by what is
  // free now and what this engine holds itself. Sessions go on where they are, and results stay the same bit for bit;
  // what changes is which weights stay in memory and which are read again for every step. Waits for the running step of
  // a session, and takes about as long as loading did. An engine without a GPU remains without, whatever `vram`.
  // over_budget names the flag and the least that works, and nothing has changed. Where memory that was free has been
  // taken by others meanwhile, the engine goes on with the least that works, and options.warn is told; where not even
  // that is there, or the weights cannot be read, this and all calls that compute fail with the reason until a later
  // resize() succeeds: sessions keep what they hold.
  // Where EngineOptions::ram (or `ram` here) is 0 the engine does the like by itself, before a call that computes, when
  // the machine's memory runs short, and up to the budget it began with when it is free again; options.warn is told.
  virtual Status resize(uint64_t ram, uint64_t vram) = 0;

  // Text to tokens. Special tokens in the text are recognized where parse_special; none is added.
  virtual Result<std::vector<int32_t>> tokenize(std::string_view text, bool parse_special) const = 0;
  // What the model wants before a text: its BOS token, or nothing.
  virtual std::vector<int32_t> prefix() const = 0;
  virtual std::string detokenize(std::span<const int32_t> tokens) const = 0;
  virtual bool is_end(int32_t token) const = 0;
  virtual uint32_t n_vocab() const = 0;

  // The model's own chat template. not_found where it has none.
  virtual Result<std::string> apply_template(std::span<const Message> messages, bool add_generation_prompt) const = 0;

  virtual PlanReport plan_report() const = 0;
  virtual MemoryReport memory() const = 0;
  virtual std::vector<TierReport> tiers() const = 0;
  virtual StallReport stalls() const = 0;  // of a run with EngineOptions::trace_file
  virtual double load_seconds() const = 0;
};

// The tokenizer of a model file alone, without planning or loading: for tools.
class Tokenization {
 public:
  static Result<std::unique_ptr<Tokenization>> open(const std::string& path);
  virtual ~Tokenization() = default;
  virtual Result<std::vector<int32_t>> tokenize(std::string_view text, bool parse_special) const = 0;
  virtual std::string detokenize(std::span<const int32_t> tokens) const = 0;
};

}  // namespace sluice
