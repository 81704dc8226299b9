// The public Engine on top of a Runtime.
#include "sluice/engine.h"

#include <ctime>

#include "core/error.h"
#include "engine/advice.h"
#include "engine/model.h"
#include "engine/report.h"
#include "engine/session.h"
#include "engine/text/chat_template.h"

namespace sluice {
namespace {

using engine::Tokenizer;

Result<std::vector<int32_t>> encode(const Tokenizer& tokenizer, std::string_view text, bool parse_special) {
  SLUICE_ASSIGN_OR_RETURN(auto encoded, tokenizer.encode(text, {false, parse_special}));
  return std::move(encoded.tokens);
}

std::string decode(const Tokenizer& tokenizer, std::span<const int32_t> tokens) {
  auto text = tokenizer.decode(tokens, true);
  return text.ok() ? std::move(*text) : std::string();
}

std::string_view bytes_of(const Tokenizer& tokenizer, int32_t token) {
  return token < 0 ? std::string_view() : tokenizer.token_bytes(token);
}

Result<std::string> render_chat(const engine::Model& model, std::span<const Message> messages, bool add_prompt) {
  if (model.chat_template.empty())
    return error(Code::not_found, "{}: the model has no chat template", model.files.front());
  auto parsed = engine::ChatTemplate::parse(model.chat_template);
  if (!parsed.ok()) return parsed.status().with_context(model.files.front() + ": chat template");
  std::vector<engine::ChatMessage> views;
  for (const Message& m : messages) views.push_back({m.role, m.content});
  const engine::Vocab& vocab = model.tokenizer->vocab();
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  engine::ChatInput input{
      views, add_prompt, bytes_of(*model.tokenizer, vocab.bos()), bytes_of(*model.tokenizer, vocab.eos()), local, {}};
  auto text = parsed->render(input);
  if (!text.ok()) return text.status().with_context("chat template");
  return text;
}

class EngineImpl : public Engine {
 public:
  explicit EngineImpl(std::unique_ptr<engine::Runtime> runtime) : runtime_(std::move(runtime)) {}

  Result<std::unique_ptr<Session>> new_session() override { return engine::SessionImpl::create(*runtime_); }
  Status decode(std::span<const Turn> turns,
                const std::function<void(size_t, std::span<const float>)>& on_logits) override {
    return engine::SessionImpl::decode(*runtime_, turns, on_logits);
  }

  Result<std::vector<int32_t>> tokenize(std::string_view text, bool parse_special) const override {
    return encode(tokenizer(), text, parse_special);
  }
  std::vector<int32_t> prefix() const override {
    auto encoded = tokenizer().encode("", {true, false});
    if (!encoded.ok() || encoded->tokens.empty() || encoded->tokens.front() != tokenizer().vocab().bos()) return {};
    return {encoded->tokens.front()};
  }
  std::string detokenize(std::span<const int32_t> tokens) const override { return sluice::decode(tokenizer(), tokens); }
  bool is_end(int32_t token) const override { return tokenizer().vocab().ends_generation(token); }
  uint32_t n_vocab() const override { return runtime_->graph().n_vocab; }

  Result<std::string> apply_template(std::span<const Message> messages, bool add_generation_prompt) const override {
    return render_chat(model(), messages, add_generation_prompt);
  }

  Status resize(uint64_t ram, uint64_t vram) override { return runtime_->resize(ram, vram); }

  PlanReport plan_report() const override {
    std::lock_guard lock(runtime_->plan_mutex());
    return engine::report_plan(runtime_->blueprint());
  }
  MemoryReport memory() const override { return engine::report_memory(*runtime_); }
  std::vector<TierReport> tiers() const override { return engine::report_tiers(*runtime_); }
  StallReport stalls() const override { return engine::report_stalls(*runtime_); }
  double load_seconds() const override { return runtime_->load_seconds(); }

 private:
  const engine::Model& model() const { return runtime_->blueprint().model; }
  const Tokenizer& tokenizer() const { return *model().tokenizer; }

  std::unique_ptr<engine::Runtime> runtime_;
};

class TokenizationImpl : public Tokenization {
 public:
  explicit TokenizationImpl(std::unique_ptr<Tokenizer> tokenizer) : tokenizer_(std::move(tokenizer)) {}
  Result<std::vector<int32_t>> tokenize(std::string_view text, bool parse_special) const override {
    return encode(*tokenizer_, text, parse_special);
  }
  std::string detokenize(std::span<const int32_t> tokens) const override { return decode(*tokenizer_, tokens); }

 private:
  std::unique_ptr<Tokenizer> tokenizer_;
};

}  // namespace

Result<std::unique_ptr<Engine>> Engine::open(const EngineOptions& options) {
  SLUICE_ASSIGN_OR_RETURN(auto runtime, engine::open_runtime(options));
  return std::unique_ptr<Engine>(new EngineImpl(std::move(runtime)));
}

Result<PlanReport> Engine::plan(const EngineOptions& options) {
  SLUICE_ASSIGN_OR_RETURN(const engine::Blueprint blueprint, engine::draw_up(options, engine::Purpose::plan));
  PlanReport report = engine::report_plan(blueprint);
  report.helps = engine::advise(blueprint);
  return report;
}

Result<ModelReport> Engine::inspect(const std::string& path) { return engine::inspect_model(path); }

Result<std::unique_ptr<Tokenization>> Tokenization::open(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const auto gguf, storage::GgufFile::open(path));
  SLUICE_ASSIGN_OR_RETURN(auto tokenizer, engine::open_tokenizer(gguf));
  return std::unique_ptr<Tokenization>(new TokenizationImpl(std::move(tokenizer)));
}

}  // namespace sluice
