#include "apps/flags.h"

#include <algorithm>
#include <limits>
#include <map>
#include <random>

#include "apps/values.h"

namespace sluice::apps {
namespace {

constexpr uint64_t int32_max = std::numeric_limits<int32_t>::max();

// The value, or the exception that the parser turns into a usage error.
template <class T>
T checked(const std::string& name, Result<T> value) {
  if (!value.ok()) throw CLI::ValidationError(name, value.status().message());
  return *value;
}

// The last of "-n,--predict", which is the longest and clearest.
std::string clearest(const std::string& names) { return names.substr(names.rfind(',') + 1); }

template <class Parse>
CLI::Option* add_value(CLI::App& command, const std::string& names, const std::string& type, const std::string& help,
                       Parse parse) {
  return command
      .add_option_function<std::string>(
          names, [name = clearest(names), parse](const std::string& text) { parse(name, text); }, help)
      ->type_name(type);
}

CLI::Option* add_integer(CLI::App& command, const std::string& names, int64_t low, int64_t high,
                         const std::string& help, const std::function<void(int64_t)>& set) {
  return add_value(command, names, "N", help, [=](const std::string& name, const std::string& text) {
    set(checked(name, parse_integer(text, low, high)));
  });
}

CLI::Option* add_real(CLI::App& command, const std::string& names, float& target, double low, double high,
                      const std::string& help) {
  return add_value(command, names, "X", help,
                   [&target, low, high](const std::string& name, const std::string& text) {
                     target = static_cast<float>(checked(name, parse_number(text, low, high)));
                   })
      ->default_str(CLI::detail::to_string(target));
}

template <class T>
CLI::Option* add_choice(CLI::App& command, const std::string& name, T& target, const std::map<std::string, T>& choices,
                        const std::string& type, const std::string& help) {
  return add_value(command, name, type, help, [&target, choices](const std::string& n, const std::string& text) {
    const auto found = choices.find(text);
    if (found == choices.end()) throw CLI::ValidationError(n, "'" + text + "' is none of the choices");
    target = found->second;
  });
}

// Where decoding computes; without them the plan chooses.
void add_place_flags(CLI::App& command, EngineOptions& options) {
  const auto layers = [&](const std::string& names, uint32_t& target, const std::string& help) {
    add_integer(command, names, 0, static_cast<int64_t>(int32_max) - 1, help,
                [&target](int64_t n) { target = static_cast<uint32_t>(n); });
  };
  layers(
      "--gpu-layers,--n-gpu-layers", options.gpu_layers,
      "-ngl: so many of the last layers on the GPU, the others on the CPU; one more: the output too; the plan chooses");
  layers("--n-cpu-ffn", options.cpu_ffn_layers, "FFNs of so many of the first layers on the CPU; the plan chooses");
  layers("--n-cpu-moe", options.cpu_expert_layers, "Experts of so many of the first layers on the CPU");
  command
      .add_option_function<std::vector<std::string>>(
          "--override-tensor", [&options](const std::vector<std::string>& rules) { options.tensor_places = rules; },
          "-ot: matrices whose names match on the CPU or the GPU; the first rule that matches counts")
      ->type_name("REGEX=CPU|GPU,…")
      ->delimiter(',')
      ->allow_extra_args(false);
}

uint64_t seed_of(int64_t given) {
  if (given >= 0) return static_cast<uint64_t>(given);
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

void add_sampling_flags(CLI::App& command, SamplingOptions& sampling) {
  const double large = std::numeric_limits<float>::max();
  add_real(command, "--temp", sampling.temperature, 0, large, "Temperature; 0: always the likeliest token");
  add_integer(command, "--top-k", 0, static_cast<int64_t>(int32_max), "Sample among the k likeliest; 0: off",
              [&sampling](int64_t k) { sampling.top_k = static_cast<int32_t>(k); })
      ->default_str(std::to_string(sampling.top_k));
  add_real(command, "--top-p", sampling.top_p, 0, 1, "Sample among the likeliest of this probability in all; 1: off");
  add_real(command, "--min-p", sampling.min_p, 0, 1,
           "Leave out what is less likely than this part of the best; 0: off");
  add_real(command, "--repeat-penalty", sampling.repeat_penalty, 1e-6, large, "Penalty of repeated tokens; 1: off");
  add_integer(command, "--repeat-last-n", -1, static_cast<int64_t>(int32_max),
              "Tokens that the penalty looks at; -1: all",
              [&sampling](int64_t n) { sampling.repeat_last_n = static_cast<int32_t>(n); })
      ->default_str(std::to_string(sampling.repeat_last_n));
  add_integer(command, "-s,--seed", -1, std::numeric_limits<int64_t>::max(),
              "Seed of sampling; -1: a new one each time", [&sampling](int64_t seed) { sampling.seed = seed_of(seed); })
      ->default_str(std::to_string(sampling.seed));
}

}  // namespace

CLI::Option* add_whole(CLI::App& command, const std::string& names, uint32_t& target, Range range,
                       const std::string& help) {
  return add_value(command, names, "N", help, [&target, range](const std::string& name, const std::string& text) {
    target = static_cast<uint32_t>(checked(name, parse_unsigned(text, range.low, range.high)));
  });
}

CLI::Option* add_wholes(CLI::App& command, const std::string& names, std::vector<uint32_t>& target, Range range,
                        const std::string& help) {
  const auto set = [name = clearest(names), &target, range](const std::vector<std::string>& lists) {
    target.clear();
    for (const std::string& list : lists)
      for (size_t at = 0; at <= list.size();) {
        const size_t comma = std::min(list.find(',', at), list.size());
        const auto text = std::string_view(list).substr(at, comma - at);
        target.push_back(static_cast<uint32_t>(checked(name, parse_unsigned(text, range.low, range.high))));
        at = comma + 1;
      }
  };
  return command.add_option_function<std::vector<std::string>>(names, set, help)
      ->type_name("N,N,…")
      ->allow_extra_args(false);
}

CLI::Option* add_path(CLI::App& command, const std::string& names, std::string& target, const std::string& help) {
  return add_value(command, names, "PATH", help, [&target](const std::string& name, const std::string& text) {
    if (text.empty()) throw CLI::ValidationError(name, "the path is empty");
    target = text;
  });
}

void add_model_flag(CLI::App& command, std::string& model, const std::string& names) {
  add_path(command, names, model, "The model: a GGUF file, the first of a split one")->required();
}

void add_engine_flags(CLI::App& command, EngineOptions& options) {
  add_model_flag(command, options.model);
  add_memory_flags(command, options);
  add_whole(command, "-t,--threads", options.threads, {1, 4096}, "Threads; one for each core that may be used");
}

void add_memory_flags(CLI::App& command, EngineOptions& options) {
  add_value(
      command, "--ram", "SIZE", "Hard budget of all that is held in memory: 64M, 1.5G; most of what is free",
      [&options](const std::string& name, const std::string& text) { options.ram = checked(name, parse_size(text)); });
  add_value(command, "--vram", "SIZE", "The same of a GPU's memory; 0: no GPU; most of what is free there",
            [&options](const std::string& name, const std::string& text) {
              options.vram = text == "0" ? 0 : checked(name, parse_size(text));
            });
  add_place_flags(command, options);
  add_whole(command, "-c,--ctx,--ctx-size", options.context, {0, int32_max},
            "Tokens of the context; 0: the model's own, at most 4096");
  add_whole(command, "-b,--batch-size", options.batch, {1, int32_max}, "Most tokens of one step; the plan chooses");
  add_choice<Load>(command, "--load", options.load,
                   {{"auto", Load::automatic}, {"direct", Load::direct}, {"buffered", Load::buffered}},
                   "auto|direct|buffered", "How files are read; auto: buffered what is in the page cache");
  add_choice<Precision>(command, "--compute", options.precision, {{"fast", Precision::fast}, {"f32", Precision::f32}},
                        "fast|f32", "f32: weights dequantized, F32 activations and KV; the reference");
  add_choice<Prompts>(
      command, "--prompts", options.prompts,
      {{"auto", Prompts::automatic}, {"int8", Prompts::int8}, {"bf16", Prompts::bf16}, {"wide8", Prompts::wide8}},
      "auto|int8|bf16|wide8",
      "How the CPU multiplies prompts; bf16: by oneDNN; wide8: 8 bits by 256, as auto on CPUs with AMX");
  command.add_flag("--deterministic", options.deterministic, "Forbid decisions that depend on what is in memory");
  add_path(command, "--spill-dir", options.spill_directory, "Where KV that does not fit goes; $TMPDIR or /tmp");
  add_path(command, "--machine", options.machine_file, "Rates of this machine; measured once and kept");
}

void add_trace_flag(CLI::App& command, EngineOptions& options) {
  add_path(command, "--trace", options.trace_file, "Write a trace for Chrome or Perfetto");
}

void add_text_flags(CLI::App& command, TextSource& text) {
  CLI::Option* prompt =
      add_value(command, "-p,--prompt", "TEXT", "The text; standard input where there is neither -p nor -f",
                [&text](const std::string&, const std::string& value) {
                  text.prompt = value;
                  text.has_prompt = true;
                });
  add_value(command, "-f,--file", "PATH", "A file with the text",
            [&text](const std::string&, const std::string& value) {
              text.file = value;
              text.has_file = true;
            })
      ->excludes(prompt);
  command.add_flag("-e,--escape,!--no-escape", text.escapes, "Process \\n, \\t, \\xHH and so on in -p (the default)");
}

void add_generation_flags(CLI::App& command, GenerateOptions& options) {
  add_integer(command, "-n,--predict,--n-predict", -1, static_cast<int64_t>(int32_max),
              "Most tokens to generate; -1: until the model ends or the context is full",
              [&options](int64_t n) { options.max_tokens = n; })
      ->default_str("-1");
  command.add_flag("--ignore-eos", options.ignore_end, "Go on after the model's end of text");
  add_sampling_flags(command, options.sampling);
}

}  // namespace sluice::apps
