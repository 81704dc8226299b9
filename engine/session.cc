#include "engine/session.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/error.h"
#include "engine/sampling/sampler.h"

namespace sluice::engine {
namespace {

double seconds_since(uint64_t start) { return static_cast<double>(now_ns() - start) * 1e-9; }

SamplerOptions sampler_options(const SamplingOptions& o, uint32_t context) {
  const int32_t last_n = o.repeat_last_n < 0 ? static_cast<int32_t>(context) : o.repeat_last_n;
  return {o.temperature, o.top_k, o.top_p, o.min_p, o.repeat_penalty, last_n, o.seed};
}

// What a generation says about itself at the end.
void fill_rates(Generation& g) {
  if (g.prefill_s > 0) g.prefill_tok_s = g.prompt_tokens / g.prefill_s;
  const auto steps = static_cast<double>(g.tokens.size());
  if (g.decode_s > 0) g.decode_tok_s = steps / g.decode_s;
}

}  // namespace

TokenScore score_row(const float* logits, uint32_t n_vocab, int32_t id) {
  TokenScore score;
  score.id = id;
  float best = -INFINITY, second = -INFINITY;
  for (uint32_t i = 0; i < n_vocab; ++i) {
    if (logits[i] > best) {
      second = best;
      best = logits[i];
      score.argmax = static_cast<int32_t>(i);
    } else if (logits[i] > second) {
      second = logits[i];
    }
  }
  double sum = 0;
  for (uint32_t i = 0; i < n_vocab; ++i) sum += std::exp(static_cast<double>(logits[i]) - best);
  score.logprob = static_cast<double>(logits[id]) - best - std::log(sum);
  score.margin = best - second;
  return score;
}

Result<std::unique_ptr<Session>> SessionImpl::create(Runtime& runtime) {
  std::lock_guard lock(runtime.mutex());
  SLUICE_ASSIGN_OR_RETURN(const SequenceId sequence, runtime.kv().create());
  return std::unique_ptr<Session>(new SessionImpl(runtime, sequence));
}

SessionImpl::~SessionImpl() {
  std::lock_guard lock(runtime_.mutex());
  runtime_.kv().destroy(sequence_);
}

Status SessionImpl::check_room(size_t n) const {
  const uint32_t left = context() - length();
  if (n <= left) return {};
  return error(Code::invalid_argument, "{} tokens do not fit: the context is {} and {} are in use (raise it with -c)",
               n, context(), length());
}

Status SessionImpl::check_cancelled() {
  if (!cancelled_.exchange(false, std::memory_order_relaxed)) return {};
  return error(Code::cancelled, "cancelled");
}

Status SessionImpl::run_step(std::span<const int32_t> tokens, const Wanted& wanted, bool prompt,
                             plan::StepResult& result) {
  batch_.tokens.clear();
  batch_.prompt = prompt;
  for (size_t i = 0; i < tokens.size(); ++i)
    batch_.tokens.push_back(
        {tokens[i], static_cast<int32_t>(tokens_.size() + i), sequence_, 0, i >= wanted.first, wanted.best});
  SLUICE_ASSIGN_OR_RETURN(result, runtime_.step(batch_));
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  return {};
}

template <class OnRows>
Status SessionImpl::feed(std::span<const int32_t> tokens, const Wanted& wanted, OnRows on_rows) {
  SLUICE_RETURN_IF_ERROR(check_room(tokens.size()));
  const uint32_t before = length();
  const bool prompt = tokens.size() > runtime_.plan().numerics.short_prompt;
  Status status;
  for (size_t done = 0; done < tokens.size() && status.ok();) {
    const size_t first = wanted.first > done ? wanted.first - done : 0;
    const size_t most = std::min(size_t{runtime_.plan().workspace.tokens}, first + wanted.max_rows);
    const size_t n = std::min(most, tokens.size() - done);
    plan::StepResult result;
    std::lock_guard lock(runtime_.mutex());
    status = check_cancelled();
    if (status.ok()) status = run_step(tokens.subspan(done, n), {first, n, wanted.best}, prompt, result);
    if (status.ok() && result.n_rows > 0) on_rows(done + first, result);
    done += n;
  }
  if (!status.ok()) truncate(before).ignore();  // the sequence never holds half of a call
  return status;
}

// A cancel() that was meant for an earlier call is forgotten.
void SessionImpl::begin_call() {
  cancelled_.store(false, std::memory_order_relaxed);
  runtime_.adapt();
}

Status SessionImpl::append(std::span<const int32_t> tokens) {
  begin_call();
  return feed(tokens, {tokens.size(), 1}, [](size_t, const plan::StepResult&) {});
}

Result<std::vector<TokenScore>> SessionImpl::score(std::span<const int32_t> tokens, uint32_t first) {
  if (first == 0 || first > tokens.size())
    return error(Code::invalid_argument, "cannot score from token {} of {}", first, tokens.size());
  const plan::WorkspaceShape& shape = runtime_.plan().workspace;
  const uint32_t n_vocab = runtime_.graph().n_vocab;
  begin_call();
  std::vector<TokenScore> scores;
  const auto on_rows = [&](size_t at, const plan::StepResult& rows) {
    for (uint32_t row = 0; row < rows.n_rows && at + row + 1 < tokens.size(); ++row)
      scores.push_back(score_row(rows.logits + uint64_t{row} * n_vocab, n_vocab, tokens[at + row + 1]));
  };
  SLUICE_RETURN_IF_ERROR(feed(tokens, {first - 1, shape.logit_rows}, on_rows));
  return scores;
}

Result<Generation> SessionImpl::generate(std::span<const int32_t> prompt, const GenerateOptions& options,
                                         const std::function<bool(int32_t, std::string_view)>& on_token) {
  if (prompt.empty()) return error(Code::invalid_argument, "an empty prompt: there is nothing to go on from");
  begin_call();
  const uint32_t n_vocab = runtime_.graph().n_vocab;
  const Tokenizer& tokenizer = *runtime_.blueprint().model.tokenizer;
  SLUICE_ASSIGN_OR_RETURN(Sampler sampler, Sampler::make(sampler_options(options.sampling, context()), n_vocab));
  for (const int32_t token : tokens_) sampler.accept(token);
  for (const int32_t token : prompt) sampler.accept(token);

  Generation g;
  g.prompt_tokens = static_cast<uint32_t>(prompt.size());
  std::optional<Result<int32_t>> next;  // drawn as soon as the row is there, which lasts until the next step of any
  const auto feed_and_draw = [&](std::span<const int32_t> tokens) {
    const BestTokens best = sampler.wanted();
    return feed(tokens, {tokens.size() - 1, 1, best}, [&](size_t, const plan::StepResult& row) {
      next = best.k > 0 ? sampler.sample(std::span(row.best, best.k)) : sampler.sample(std::span(row.logits, n_vocab));
    });
  };
  uint64_t start = now_ns();
  SLUICE_RETURN_IF_ERROR(feed_and_draw(prompt));
  g.prefill_s = seconds_since(start);

  Utf8Stream stream;
  start = now_ns();
  while (g.stop_reason.empty()) {
    if (options.max_tokens >= 0 && static_cast<int64_t>(g.tokens.size()) >= options.max_tokens) {
      g.stop_reason = "length";
      break;
    }
    SLUICE_ASSIGN_OR_RETURN(const int32_t token, *next);
    if (tokenizer.vocab().ends_generation(token) && !options.ignore_end) {
      g.stop_reason = "end";
      break;
    }
    sampler.accept(token);
    g.tokens.push_back(token);
    std::string piece;
    if (!tokenizer.vocab().is_control(token)) stream.append(tokenizer.token_bytes(token), piece);
    g.text += piece;
    if (on_token && !on_token(token, piece)) g.stop_reason = "callback";
    if (g.stop_reason.empty() && length() == context()) g.stop_reason = "context";
    if (!g.stop_reason.empty()) break;

    const Status status = feed_and_draw({&token, 1});
    if (status.code() == Code::cancelled) g.stop_reason = "cancelled";
    else SLUICE_RETURN_IF_ERROR(status);
  }
  g.decode_s = seconds_since(start);
  std::string rest;
  stream.finish(rest);
  g.text += rest;
  if (!rest.empty() && on_token && !g.tokens.empty()) on_token(g.tokens.back(), rest);
  fill_rates(g);
  return g;
}

Status SessionImpl::truncate(uint32_t n) {
  std::lock_guard lock(runtime_.mutex());
  SLUICE_RETURN_IF_ERROR(runtime_.kv().truncate(sequence_, n));
  tokens_.resize(n);
  return {};
}

Result<std::unique_ptr<Session>> SessionImpl::fork() {
  std::lock_guard lock(runtime_.mutex());
  SLUICE_ASSIGN_OR_RETURN(const SequenceId copy, runtime_.kv().fork(sequence_));
  std::unique_ptr<SessionImpl> session(new SessionImpl(runtime_, copy));
  session->tokens_ = tokens_;
  return std::unique_ptr<Session>(std::move(session));
}

}  // namespace sluice::engine
