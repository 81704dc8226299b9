#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "apps/bench_report.h"
#include "apps/commands.h"
#include "apps/open.h"
#include "apps/output.h"

namespace sluice::apps {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Tests that one engine serves: the same model, threads, sequences and depth.
struct Setting {
  std::string model;
  uint32_t threads = 0, sequences = 1, depth = 0;
};

// Random tokens, the model's own beginning before them.
class TokenSource {
 public:
  explicit TokenSource(const Engine& engine) : n_vocab_(engine.n_vocab()), prefix_(engine.prefix()) {}
  int32_t next() { return static_cast<int32_t>(random_() % n_vocab_); }
  std::vector<int32_t> text(uint32_t n) {
    std::vector<int32_t> tokens(n);
    for (int32_t& token : tokens) token = next();
    for (size_t i = 0; i < std::min<size_t>(n, prefix_.size()); ++i) tokens[i] = prefix_[i];
    return tokens;
  }

 private:
  uint32_t n_vocab_;
  std::vector<int32_t> prefix_;
  std::mt19937 random_{1};
};

class SettingRun {
 public:
  SettingRun(const BenchOptions& options, const Setting& setting) : o_(options), s_(setting) {}

  Status open() {
    EngineOptions engine = o_.engine;
    engine.model = s_.model;
    engine.threads = s_.threads;
    engine.sessions = engine.logit_rows = s_.sequences;
    if (engine.context == 0) engine.context = s_.depth + longest();
    if (!o_.prompts.empty()) engine.prompt = *std::max_element(o_.prompts.begin(), o_.prompts.end());
    if (engine.batch != 0) engine.batch = std::max(engine.batch, s_.sequences);
    SLUICE_ASSIGN_OR_RETURN(engine_, open_engine(engine, true));
    tokens_ = std::make_unique<TokenSource>(*engine_);
    for (uint32_t i = 0; i < s_.sequences; ++i) {
      SLUICE_ASSIGN_OR_RETURN(auto session, engine_->new_session());
      if (s_.depth > 0) SLUICE_RETURN_IF_ERROR(session->append(tokens_->text(s_.depth)));
      sessions_.push_back(std::move(session));
    }
    return {};
  }

  // A prompt is of one sequence; it is not measured again for several.
  Status prompts(std::vector<BenchResult>& results) {
    for (const uint32_t n : o_.prompts)
      if (n > 0 && s_.sequences == 1) SLUICE_RETURN_IF_ERROR(measure(n, 0, results));
    return {};
  }
  Status generations(std::vector<BenchResult>& results) {
    for (const uint32_t n : o_.generated)
      if (n > 0) SLUICE_RETURN_IF_ERROR(measure(0, n, results));
    return {};
  }

 private:
  uint32_t longest() const {
    uint32_t most = 1;
    for (const uint32_t n : o_.generated) most = std::max(most, n);
    if (s_.sequences == 1)
      for (const uint32_t n : o_.prompts) most = std::max(most, n);
    return most;
  }

  Status measure(uint32_t n_prompt, uint32_t n_generated, std::vector<BenchResult>& results) {
    BenchResult result;
    result.model = s_.model;
    result.threads = engine_->plan_report().machine.threads;
    result.sequences = s_.sequences;
    result.depth = s_.depth;
    result.n_prompt = n_prompt;
    result.n_generated = n_generated;
    if (o_.warm_up) SLUICE_RETURN_IF_ERROR(once(n_prompt, std::min(n_generated, 1u)).status());
    const std::vector<TierReport> before = engine_->tiers();
    for (uint32_t i = 0; i < o_.repetitions; ++i) {
      SLUICE_ASSIGN_OR_RETURN(const double seconds, once(n_prompt, n_generated));
      result.seconds.push_back(seconds);
    }
    result.paths = paths_between(before, engine_->tiers(), result.seconds);
    result.plan = engine_->plan_report();
    result.memory = engine_->memory();
    result.load_s = engine_->load_seconds();
    results.push_back(std::move(result));
    return {};
  }

  // Seconds of one run, after which the sessions are as before.
  Result<double> once(uint32_t n_prompt, uint32_t n_generated) {
    const auto seconds = n_prompt > 0 ? prompt(n_prompt) : generate(n_generated);
    for (const auto& session : sessions_) SLUICE_RETURN_IF_ERROR(session->truncate(s_.depth));
    return seconds;
  }

  // As a prompt is run: logits of its last token, none sampled.
  Result<double> prompt(uint32_t n) {
    const std::vector<int32_t> tokens = tokens_->text(n);
    GenerateOptions options;
    options.max_tokens = 0;
    SLUICE_ASSIGN_OR_RETURN(const Generation done, sessions_.front()->generate(tokens, options));
    return done.prefill_s;
  }

  Result<double> generate(uint32_t n) {
    std::vector<Turn> turns(sessions_.size());
    const auto start = Clock::now();
    for (uint32_t i = 0; i < n; ++i) {
      for (size_t s = 0; s < sessions_.size(); ++s) turns[s] = {sessions_[s].get(), tokens_->next()};
      SLUICE_RETURN_IF_ERROR(engine_->decode(turns, {}));
    }
    return seconds_since(start);
  }

  const BenchOptions& o_;
  const Setting s_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<TokenSource> tokens_;
  std::vector<std::unique_ptr<Session>> sessions_;
};

std::vector<Setting> settings(const BenchOptions& o) {
  std::vector<Setting> all;
  for (const std::string& model : o.models)
    for (const uint32_t threads : o.threads)
      for (const uint32_t depth : o.depths)
        for (const uint32_t sequences : o.sequences) all.push_back({model, threads, sequences, depth});
  return all;
}

}  // namespace

Result<int> bench(const BenchOptions& options) {
  std::vector<BenchResult> results;
  Output output;
  BenchWriter writer(options.format);
  for (const Setting& setting : settings(options)) {
    SLUICE_ASSIGN_OR_RETURN(const ModelReport model, Engine::inspect(setting.model));
    SettingRun run(options, setting);
    SLUICE_RETURN_IF_ERROR(run.open());
    SLUICE_RETURN_IF_ERROR(run.prompts(results));
    SLUICE_RETURN_IF_ERROR(run.generations(results));
    for (const BenchResult& result : results)
      if (!output.write(writer.add(result, model))) return output.finish();
    results.clear();
  }
  output.write(writer.end());
  return output.finish();
}

}  // namespace sluice::apps
