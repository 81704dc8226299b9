#include "apps/cli.h"

#include <unistd.h>

#include <map>
#include <sstream>
#include <string_view>
#include <vector>

#include "apps/flags.h"
#include "sluice/engine.h"

namespace sluice::apps {
namespace {

void add_json(CLI::App& command, bool& json) { command.add_flag("--json", json, "Print one JSON object"); }

void add_run(CLI::App& app, RunOptions& options) {
  CLI::App& command = *app.add_subcommand("run", "Complete a text");
  add_engine_flags(command, options.engine);
  add_trace_flag(command, options.engine);
  add_text_flags(command, options.text);
  add_generation_flags(command, options.generate);
  add_json(command, options.json);
  command.add_flag("--stats", options.stats, "Print what was read, held and reached, to stderr");
}

void add_chat(CLI::App& app, ChatOptions& options) {
  CLI::App& command = *app.add_subcommand("chat", "Talk with a model, with its own chat template");
  add_engine_flags(command, options.engine);
  add_trace_flag(command, options.engine);
  add_generation_flags(command, options.generate);
  command.add_option("--system,--system-prompt", options.system, "The system message")->type_name("TEXT");
}

void add_plan(CLI::App& app, PlanOptions& options) {
  CLI::App& command = *app.add_subcommand("plan", "Show what would live where, and how fast it would be");
  add_engine_flags(command, options.engine);
  add_json(command, options.json);
}

void add_tokenize(CLI::App& app, TokenizeOptions& options) {
  CLI::App& command = *app.add_subcommand("tokenize", "Print the token ids of a text");
  add_model_flag(command, options.model);
  add_text_flags(command, options.text);
  add_json(command, options.json);
}

void add_perplexity(CLI::App& app, PerplexityOptions& options) {
  CLI::App& command = *app.add_subcommand("perplexity", "Judge a text, or sequences of token ids");
  add_engine_flags(command, options.engine);
  add_trace_flag(command, options.engine);
  CLI::Option* file = add_path(command, "-f,--file", options.file, "The text, in windows of the context's size (512)");
  CLI::Option* ids = add_path(command, "--ids", options.ids, "Token ids, one sequence a line");
  CLI::Option* chunks =
      add_whole(command, "--chunks", options.chunks, {1, INT32_MAX}, "Windows of the text; all of them");
  ids->excludes(file)->excludes(chunks);
  add_json(command, options.json);
  command.final_callback([&options, file, ids] {
    if (file->count() + ids->count() == 0) throw CLI::RequiredError("-f FILE or --ids FILE");
    if (options.engine.context == 1 || options.engine.context == 2)
      throw CLI::ValidationError("--ctx", "a window needs 3 tokens at least");
  });
}

void add_inspect(CLI::App& app, InspectOptions& options) {
  CLI::App& command = *app.add_subcommand("inspect", "Show a model file's metadata and tensors");
  add_model_flag(command, options.model, "model,-m,--model");
  add_json(command, options.json);
}

void add_bench(CLI::App& app, BenchOptions& options) {
  CLI::App& command = *app.add_subcommand("bench", "Measure prompts and generation, as llama-bench does");
  command.add_option("-m,--model", options.models, "The model: a GGUF file, the first of a split one; several times")
      ->type_name("PATH")
      ->allow_extra_args(false)
      ->required();
  add_memory_flags(command, options.engine);
  constexpr uint64_t most = INT32_MAX / 2;
  add_wholes(command, "-p,--n-prompt", options.prompts, {0, most}, "Tokens of a prompt; 512");
  add_wholes(command, "-n,--n-gen", options.generated, {0, most}, "Tokens to generate; 128");
  add_wholes(command, "-d,--n-depth", options.depths, {0, most}, "Tokens held before; 0");
  add_wholes(command, "-t,--threads", options.threads, {1, 4096}, "Threads; one for each core that may be used");
  add_wholes(command, "-B,--sequences", options.sequences, {1, 1024}, "Sequences that generate together; 1");
  add_whole(command, "-r,--repetitions", options.repetitions, {1, 1000}, "Times each test is measured; 5");
  command.add_flag("!--no-warmup", options.warm_up, "Measure from the first run on");
  command.add_option("-o,--output", options.format, "How results are printed: md, csv or json")
      ->type_name("md|csv|json")
      ->transform(CLI::CheckedTransformer(std::map<std::string, BenchFormat>{
          {"md", BenchFormat::markdown}, {"csv", BenchFormat::csv}, {"json", BenchFormat::json}}));
}

void add_doctor(CLI::App& app, DoctorOptions& options) {
  CLI::App& command = *app.add_subcommand("doctor", "Measure this machine, and say what would make it faster");
  CLI::Option* model = add_path(command, "-m,--model", options.model, "The model whose disk is measured");
  add_path(command, "--dir", options.directory, "The directory whose disk is measured; the user's cache")
      ->excludes(model);
  add_path(command, "--machine", options.machine_file, "Where the rates are written; where `plan` looks for them");
  add_whole(command, "-t,--threads", options.threads, {1, 4096}, "Threads; one for each core that may be used");
  add_json(command, options.json);
}

std::string help_text(const CLI::App& app, const CLI::Error& error) {
  std::ostringstream out, ignored;
  app.exit(error, out, ignored);
  std::string text = out.str();
  if (text.empty() || text.back() != '\n') text += '\n';
  return text;
}

Parsed usage_error(const CLI::App& app, const std::string& what) {
  const auto commands = app.get_subcommands();
  const std::string command = commands.empty() ? "" : commands.front()->get_name() + " ";
  Parsed parsed;
  parsed.done = true;
  parsed.exit_code = 2;
  parsed.text = what + " (see `sluice " + command + "--help`)";
  return parsed;
}

// The parser knows no names of several letters behind one dash. A text behind -p is none.
std::vector<const char*> with_long_names(int argc, const char* const* argv) {
  const std::map<std::string_view, const char*> names = {
      {"-ngl", "--n-gpu-layers"}, {"-ot", "--override-tensor"}, {"-ncmoe", "--n-cpu-moe"}};
  std::vector<const char*> out(argv, argv + argc);
  for (size_t i = 1; i < out.size(); ++i) {
    const std::string_view before = out[i - 1];
    const auto name = names.find(out[i]);
    if (name != names.end() && before != "-p" && before != "--prompt") out[i] = name->second;
  }
  return out;
}

}  // namespace

Parsed parse_command_line(int argc, const char* const* argv) {
  CLI::App app("Runs language models that are larger than the memory they are given.", "sluice");
  app.set_version_flag("--version", std::string("sluice ") + version);
  app.require_subcommand(1);
  Parsed parsed;
  Invocation& in = parsed.invocation;
  add_run(app, in.run);
  add_chat(app, in.chat);
  add_plan(app, in.plan);
  add_tokenize(app, in.tokenize);
  add_perplexity(app, in.perplexity);
  add_inspect(app, in.inspect);
  add_bench(app, in.bench);
  add_doctor(app, in.doctor);
  try {
    const std::vector<const char*> arguments = with_long_names(argc, argv);
    app.parse(static_cast<int>(arguments.size()), arguments.data());
  } catch (const CLI::Error& error) {
    if (error.get_exit_code() != 0) return usage_error(app, error.what());
    parsed.done = true;
    parsed.text = help_text(app, error);
    return parsed;
  }
  in.command = app.get_subcommands().front()->get_name();
  const TextSource* text = in.command == "run" ? &in.run.text : in.command == "tokenize" ? &in.tokenize.text : nullptr;
  if (text != nullptr && !text->has_prompt && !text->has_file && ::isatty(STDIN_FILENO) == 1)
    return usage_error(app, "no text: give -p TEXT or -f FILE, or pipe it in");
  return parsed;
}

}  // namespace sluice::apps
