// SessionImpl: one sequence of a Runtime, and what is done with it.
#pragma once

#include <atomic>

#include "engine/runtime.h"
#include "engine/text/utf8.h"
#include "sluice/engine.h"

namespace sluice::engine {

class SessionImpl : public Session {
 public:
  static Result<std::unique_ptr<Session>> create(Runtime& runtime);
  ~SessionImpl() override;

  uint32_t length() const override { return static_cast<uint32_t>(tokens_.size()); }
  uint32_t context() const override { return runtime_.plan().context; }
  Status append(std::span<const int32_t> tokens) override;
  Result<Generation> generate(std::span<const int32_t> prompt, const GenerateOptions& options,
                              const std::function<bool(int32_t, std::string_view)>& on_token) override;
  Result<std::vector<TokenScore>> score(std::span<const int32_t> tokens, uint32_t first) override;
  Status truncate(uint32_t n) override;
  Result<std::unique_ptr<Session>> fork() override;
  // Engine::decode: one step for sessions of `runtime`.
  static Status decode(Runtime& runtime, std::span<const Turn> turns,
                       const std::function<void(size_t, std::span<const float>)>& on_logits);
  void cancel() override { cancelled_.store(true, std::memory_order_relaxed); }

 private:
  SessionImpl(Runtime& runtime, SequenceId sequence) : runtime_(runtime), sequence_(sequence) {}

  // Whose logits are wanted of the tokens that are fed: of those from `first` on, at most max_rows in a step, or of
  // each what `best` says.
  struct Wanted {
    size_t first, max_rows;
    BestTokens best = {};
  };
  // Runs `tokens` through the model in as few steps as the plan allows. Rows that are wanted are handed to
  // on_rows(index of the first, result of the step), while no other session runs.
  template <class OnRows>
  Status feed(std::span<const int32_t> tokens, const Wanted& wanted, OnRows on_rows);
  Status check_room(size_t n) const;
  Status check_cancelled();
  void begin_call();
  Status run_step(std::span<const int32_t> tokens, const Wanted& wanted, bool prompt, plan::StepResult& result);

  Runtime& runtime_;
  SequenceId sequence_;
  std::vector<int32_t> tokens_;  // what the sequence holds
  Batch batch_;
  std::atomic<bool> cancelled_{false};
};

// Scores `id` under one row of logits.
TokenScore score_row(const float* logits, uint32_t n_vocab, int32_t id);

}  // namespace sluice::engine
