// What each command was asked for, as parsed from its arguments; cli.h fills them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sluice/options.h"

namespace sluice::apps {

// Where a text comes from: -p, -f, or, where neither was given, standard input.
struct TextSource {
  std::string prompt, file;
  bool has_prompt = false, has_file = false;
  bool escapes = true;  // \n and the like are processed in -p, never in files
};

struct RunOptions {
  EngineOptions engine;
  GenerateOptions generate;
  TextSource text;
  bool json = false, stats = false;
};

struct ChatOptions {
  EngineOptions engine;
  GenerateOptions generate;
  std::string system;
};

struct PlanOptions {
  EngineOptions engine;
  bool json = false;
};

struct TokenizeOptions {
  std::string model;
  TextSource text;
  bool json = false;
};

struct PerplexityOptions {
  EngineOptions engine;  // context 0: 512 for a text, the longest sequence for ids
  std::string file, ids;
  uint32_t chunks = 0;  // 0: all there are
  bool json = false;
};

struct InspectOptions {
  std::string model;
  bool json = false;
};

enum class BenchFormat { markdown, csv, json };

// Every combination of the lists is a test; 0 leaves prompts (-p) or generation (-n) out.
struct BenchOptions {
  EngineOptions engine;  // model, threads, sessions, logit_rows are each test's; context 0: what a test needs
  std::vector<std::string> models;
  std::vector<uint32_t> prompts = {512}, generated = {128}, depths = {0}, threads = {0}, sequences = {1};
  uint32_t repetitions = 5;
  bool warm_up = true;
  BenchFormat format = BenchFormat::markdown;
};

struct DoctorOptions {
  std::string model;         // the disk is measured on it
  std::string directory;     // otherwise here; empty: the user's cache directory
  std::string machine_file;  // where the rates are written; empty: where `plan` looks for them
  uint32_t threads = 0;
  bool json = false;
};

struct Invocation {
  std::string command;  // "run", "chat", …; only the options of that one are filled
  RunOptions run;
  ChatOptions chat;
  PlanOptions plan;
  TokenizeOptions tokenize;
  PerplexityOptions perplexity;
  InspectOptions inspect;
  BenchOptions bench;
  DoctorOptions doctor;
};

}  // namespace sluice::apps
