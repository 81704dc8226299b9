// An Engine without a model, for testing the command: what it answers follows from what it was asked.
//
// The model's name chooses a behaviour: "plain"; "bos" (begins texts with <s>); "no-template"; "slow" (an
// endless answer, a token each 5 ms); "slow-prompt" (never gets past the prompt); "failing" (an error after
// three tokens); "counts" (answers without text); "warning"; "bad-utf8"; "sampling" (tells what it was given);
// "gpu" (a plan with one); "missing", "small" (do not open). Tokens are bytes, 256 is <s>, 257 is <end>.
#include <algorithm>
#include <chrono>
#include <limits>
#include <thread>

#include "sluice/doctor.h"
#include "sluice/engine.h"

namespace sluice {
namespace {

constexpr int32_t bos = 256, end = 257;
constexpr uint32_t vocab = 258;

std::vector<int32_t> to_tokens(std::string_view text, bool special) {
  std::vector<int32_t> tokens;
  while (!text.empty()) {
    const std::string_view found = text.starts_with("<s>") ? "<s>" : text.starts_with("<end>") ? "<end>" : "";
    const bool is_special = special && !found.empty();
    tokens.push_back(is_special ? (found == "<s>" ? bos : end) : static_cast<unsigned char>(text[0]));
    text.remove_prefix(is_special ? found.size() : 1);
  }
  return tokens;
}

std::string to_text(std::span<const int32_t> tokens) {
  std::string text;
  for (const int32_t token : tokens)
    text += token == bos ? "<s>" : token == end ? "<end>" : std::string(1, static_cast<char>(token));
  return text;
}

std::string describe(const GenerateOptions& o) {
  const SamplingOptions& s = o.sampling;
  char text[256];
  std::snprintf(text, sizeof text, "%.3f %d %.3f %.3f %.3f %d %llu %lld %d", static_cast<double>(s.temperature),
                s.top_k, static_cast<double>(s.top_p), static_cast<double>(s.min_p),
                static_cast<double>(s.repeat_penalty), s.repeat_last_n, static_cast<unsigned long long>(s.seed),
                static_cast<long long>(o.max_tokens), int{o.ignore_end});
  return text;
}

class FakeSession : public Session {
 public:
  explicit FakeSession(const EngineOptions& options) : options_(options) {}

  uint32_t length() const override { return static_cast<uint32_t>(held_.size()); }
  uint32_t context() const override { return options_.context != 0 ? options_.context : 4096; }
  void cancel() override { cancelled_.store(true); }
  Result<std::unique_ptr<Session>> fork() override { return Status(Code::unsupported, "fork"); }

  Status append(std::span<const int32_t> tokens) override {
    if (length() + tokens.size() > context()) return Status(Code::invalid_argument, "fake: does not fit the context");
    held_.insert(held_.end(), tokens.begin(), tokens.end());
    return {};
  }

  Status truncate(uint32_t n) override {
    if (n > held_.size()) return Status(Code::invalid_argument, "fake: truncate");
    held_.resize(n);
    return {};
  }

  // Scores depend on the token, the one before it and whether the first is <s>.
  Result<std::vector<TokenScore>> score(std::span<const int32_t> tokens, uint32_t first) override {
    if (options_.logit_rows < 2) return Status(Code::invalid_argument, "fake: logit_rows");
    if (options_.batch != 0 && options_.logit_rows > options_.batch)
      return Status(Code::invalid_argument, "fake: batch");
    SLUICE_RETURN_IF_ERROR(append(tokens));
    if (options_.model == "slow" && !wait_for_cancel()) return Status(Code::internal, "fake: nobody cancelled");
    if (options_.model == "slow") return Status(Code::cancelled, "fake: cancelled");
    std::vector<TokenScore> scores;
    for (size_t i = first; i < tokens.size(); ++i) {
      const double base = ((tokens[i - 1] + tokens[i]) % 7 + 1) / 4.0;
      scores.push_back({tokens[i], -base - (tokens[0] == bos ? 0.125 : 0), (tokens[i] + 1) % 258, 0.5f});
    }
    return scores;
  }

  Result<Generation> generate(std::span<const int32_t> prompt, const GenerateOptions& options,
                              const std::function<bool(int32_t, std::string_view)>& on_token) override {
    cancelled_.store(false);
    Generation g;
    g.prompt_tokens = static_cast<uint32_t>(prompt.size());
    const std::string answer = answer_to(prompt, options);
    SLUICE_RETURN_IF_ERROR(append(prompt));
    if (options_.model == "slow-prompt") {
      wait_for_cancel();
      return Status(Code::cancelled, "fake: cancelled");
    }
    while (g.stop_reason.empty()) {
      if (options.max_tokens >= 0 && g.tokens.size() == static_cast<size_t>(options.max_tokens))
        g.stop_reason = "length";
      else if (length() == context()) g.stop_reason = "context";
      else if (cancelled_.exchange(false)) g.stop_reason = "cancelled";
      else if (g.tokens.size() == answer.size() && !endless(options)) g.stop_reason = "end";
      else SLUICE_RETURN_IF_ERROR(emit(g, answer, on_token));
    }
    g.prefill_s = 0.5, g.decode_s = 0.25, g.prefill_tok_s = 20, g.decode_tok_s = 40;
    return g;
  }

 private:
  bool endless(const GenerateOptions& options) const { return options_.model == "slow" || options.ignore_end; }

  std::string answer_to(std::span<const int32_t> prompt, const GenerateOptions& options) const {
    if (options_.model == "sampling") return describe(options);
    if (options_.model == "bad-utf8") return "a\xff";
    if (options_.model == "slow") return "";
    const size_t tail = std::min<size_t>(prompt.size(), 12);
    std::string answer = "[";
    answer.append(std::to_string(held_.size())).append("+").append(std::to_string(prompt.size()));
    if (options_.model == "counts") return answer.append("]");
    answer += ' ';
    return answer.append(to_text(prompt.subspan(prompt.size() - tail))).append("]");
  }

  Status emit(Generation& g, const std::string& answer,
              const std::function<bool(int32_t, std::string_view)>& on_token) {
    if (options_.model == "slow") std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (options_.model == "failing" && g.tokens.size() == 3) return Status(Code::io_error, "fake: disk\non fire");
    const char c = g.tokens.size() < answer.size() ? answer[g.tokens.size()] : 'x';
    const auto token = static_cast<int32_t>(static_cast<unsigned char>(c));
    held_.push_back(token);
    g.tokens.push_back(token);
    g.text += c;
    if (on_token && !on_token(token, {&c, 1})) g.stop_reason = "callback";
    return {};
  }

  bool wait_for_cancel() {
    for (int i = 0; i < 2000; ++i) {
      if (cancelled_.exchange(false)) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

  EngineOptions options_;
  std::vector<int32_t> held_;
  std::atomic<bool> cancelled_{false};
};

// Four layers, the FFN of the third one on the CPU, that of the last one split.
void add_gpu(PlanReport& plan) {
  const auto weight = [](int layer, const char* name, const char* device) {
    return PlacementReport{
        std::string("blk.").append(std::to_string(layer)).append(name), "Q4_1", device, 1 << 20, 0, 1, 0, device};
  };
  plan.layers.clear();
  for (int i = 0; i < 2; ++i)
    plan.layers.push_back({std::to_string(i),
                           {weight(i, ".attn_q.weight", "gpu 0"), weight(i, ".ffn_up.weight", "gpu 0")},
                           "gpu 0",
                           {0, 2 << 20},
                           0.5});
  plan.layers.push_back({"2",
                         {weight(2, ".attn_q.weight", "gpu 0"), weight(2, ".ffn_up.weight", "cpu")},
                         "gpu 0",
                         {1 << 20, 1 << 20},
                         0.5});
  PlacementReport divided = weight(3, ".ffn_up.weight", "gpu 0");
  divided.rows = 14336;
  divided.split = {5120, "cpu"};
  plan.layers.push_back({"3",
                         {weight(3, ".attn_q.weight", "gpu 0"), divided, weight(3, ".ffn_down.weight", "gpu 0")},
                         "gpu 0",
                         {},
                         0.25,
                         16384});
  plan.devices.resize(2);
  plan.devices[0].name = "cpu", plan.devices[0].memory = "ram", plan.devices[0].weight_bytes = 20'400'000'000;
  plan.devices[1].name = "gpu 0", plan.devices[1].memory = "vram", plan.devices[1].weight_bytes = 22'100'000'000;
  plan.devices[1].lent_bytes = 300 << 20, plan.devices[1].small_step = 128;
  plan.devices[1].streamed_bytes = 1 << 20;
  plan.disk_bytes_per_token = 0;
  plan.prefill = {{64, 640}, {512, 5120}};
  plan.helps = {{"8 GiB more VRAM", 42.5}};
  plan.bottleneck = "PCIe";
  plan.bottleneck_share = 0.78;
}

// The options, as far as they are numbers, are told as what memory is given to.
PlanReport fake_plan(const EngineOptions& o) {
  PlanReport plan;
  plan.model = o.model;
  plan.numerics_hash = "abcd";
  plan.precision = o.precision == Precision::f32 ? "f32" : "fast";
  plan.kv_type = o.load == Load::direct ? "direct" : o.load == Load::buffered ? "buffered" : "auto";
  plan.context = o.context;
  plan.batch = o.batch;
  plan.short_prompt = 11;
  plan.ram_budget = o.ram;
  plan.memory = {{"threads", o.threads}, {"deterministic", o.deterministic}, {"logit_rows", o.logit_rows}};
  if (o.vram != EngineOptions::automatic) plan.memory.emplace_back("vram", o.vram);
  if (o.gpu_layers != EngineOptions::automatic_layers) plan.memory.emplace_back("gpu_layers", o.gpu_layers);
  if (o.cpu_ffn_layers != 0) plan.memory.emplace_back("cpu_ffn_layers", o.cpu_ffn_layers);
  if (o.cpu_expert_layers != 0) plan.memory.emplace_back("cpu_expert_layers", o.cpu_expert_layers);
  for (const std::string& rule : o.tensor_places) plan.memory.emplace_back(rule, 1);
  for (int i = 0; i < 4; ++i) {
    const uint64_t kept = i < 3 ? 1 << 20 : 0;
    plan.layers.push_back({std::to_string(i),
                           {{std::string("blk.").append(std::to_string(i)).append(".attn_q.weight"), "Q4_1", "cpu",
                             kept, (1 << 20) - kept, 1, 0, ""}},
                           "",
                           {},
                           0});
  }
  plan.resident_bytes = 3 << 20;
  plan.disk_bytes_per_token = 1 << 20;
  plan.decode_tok_s = 21.04;
  plan.prefill_tok_s = std::numeric_limits<double>::infinity();
  plan.bottleneck = o.spill_directory.empty() ? "disk" : o.spill_directory;
  plan.machine.cpu = o.machine_file;
  if (o.prompts == Prompts::bf16) plan.machine.prompts = "a library";
  if (o.model == "gpu") add_gpu(plan);
  return plan;
}

class FakeEngine : public Engine {
 public:
  explicit FakeEngine(EngineOptions options) : options_(std::move(options)) {}
  Result<std::unique_ptr<Session>> new_session() override {
    return std::unique_ptr<Session>(new FakeSession(options_));
  }
  Status decode(std::span<const Turn> turns,
                const std::function<void(size_t, std::span<const float>)>& on_logits) override {
    if (turns.size() > options_.logit_rows || turns.size() > options_.sessions)
      return Status(Code::invalid_argument, "fake: too many turns");
    for (size_t i = 0; i < turns.size(); ++i) {
      SLUICE_RETURN_IF_ERROR(turns[i].session->append({&turns[i].token, 1}));
      if (on_logits) on_logits(i, std::vector<float>(vocab));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return {};
  }
  Status resize(uint64_t, uint64_t) override { return {}; }
  Result<std::vector<int32_t>> tokenize(std::string_view text, bool special) const override {
    return to_tokens(text, special);
  }
  std::vector<int32_t> prefix() const override {
    return options_.model == "bos" ? std::vector<int32_t>{bos} : std::vector<int32_t>{};
  }
  std::string detokenize(std::span<const int32_t> tokens) const override { return to_text(tokens); }
  bool is_end(int32_t token) const override { return token == end; }
  uint32_t n_vocab() const override { return vocab; }
  Result<std::string> apply_template(std::span<const Message> messages, bool open_answer) const override {
    if (options_.model == "no-template") return Status(Code::not_found, "no-template: no chat template");
    std::string text;
    for (const Message& m : messages) text += m.role.substr(0, 1) + ":" + m.content + "<end>";
    return open_answer ? text + "a:" : text;
  }
  PlanReport plan_report() const override { return fake_plan(options_); }
  MemoryReport memory() const override { return {options_.ram, 11, 12, 13, 14}; }
  std::vector<TierReport> tiers() const override { return {{"ram", 1, 2, 3, 4}, {"disk", 5, 6, 0, 8}}; }
  StallReport stalls() const override {
    if (options_.trace_file.empty()) return {};
    PeriodReport decode{"decode", 3, 2.0, 1.0, 0.5, 0.25, 0.15, 0.1};
    decode.lanes = {{"cpu", 1.0, 2048, 3.5}, {"disk", 0.625, 1024, 1.25}};
    return {{decode}, options_.trace_file == "full" ? 7u : 0u};
  }
  double load_seconds() const override { return 0.125; }

 private:
  EngineOptions options_;
};

class FakeTokenization : public Tokenization {
 public:
  Result<std::vector<int32_t>> tokenize(std::string_view text, bool special) const override {
    return to_tokens(text, special);
  }
  std::string detokenize(std::span<const int32_t> tokens) const override { return to_text(tokens); }
};

Status opens(const std::string& model) {
  if (model == "missing") return Status(Code::not_found, "missing: No such file or directory");
  if (model == "small") return Status(Code::over_budget, "the budget is too small: 9.0 MiB is the least that works");
  return {};
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::open(const EngineOptions& options) {
  SLUICE_RETURN_IF_ERROR(opens(options.model));
  if (options.model == "warning") options.warn("io_uring is not allowed here\x1b[31m: reading with threads");
  return std::unique_ptr<Engine>(new FakeEngine(options));
}

Result<PlanReport> Engine::plan(const EngineOptions& options) {
  SLUICE_RETURN_IF_ERROR(opens(options.model));
  return fake_plan(options);
}

Result<ModelReport> Engine::inspect(const std::string& path) {
  SLUICE_RETURN_IF_ERROR(opens(path));
  return ModelReport{path,
                     "llama",
                     "A \x1b[31mred\xff name",
                     {{path, 4096}},
                     {{"general.name", "two\nlines"}, {"llama.block_count", "30"}},
                     {{"token_embd.weight", "Q8_0", {64, 256}, 17408, 32, path}},
                     17408,
                     16384};
}

Result<std::unique_ptr<Tokenization>> Tokenization::open(const std::string& path) {
  SLUICE_RETURN_IF_ERROR(opens(path));
  return std::unique_ptr<Tokenization>(new FakeTokenization);
}

Result<HealthReport> examine(const ExamineOptions& options) {
  SLUICE_RETURN_IF_ERROR(opens(options.model));
  if (options.progress) options.progress("measuring");
  HealthReport r;
  r.cpu = {"a \x1b[31mCPU", "avx512", 2, 4, options.threads, 1, 32768, 1 << 20, 0, 1.5};
  r.memory = {8ULL << 30, 4ULL << 30, "never", 0, 2 << 20, 65536, 30, 25};
  r.disk = {options.path, "pread, direct", false, true, "io_uring is forbidden", 512, 4, 1.5, 1.25, 6, 0.5};
  r.gpu.reason = "no GPU device";
  r.kernels = {{"Q4_K", 20, 200, 5, 80}};
  r.call_us = 1.5;
  if (options.model.empty()) r.findings = {{"slow", "do\nthis"}};
  r.machine_file = options.machine_file;
  return r;
}

}  // namespace sluice
