// What each command was asked for, as parsed from its arguments; cli.h fills them.
#pragma once

#include <cstdint>
#include <string>

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

struct Invocation {
  std::string command;  // "run", "chat", …; only the options of that one are filled
  RunOptions run;
  ChatOptions chat;
  PlanOptions plan;
  TokenizeOptions tokenize;
  PerplexityOptions perplexity;
  InspectOptions inspect;
};

}  // namespace sluice::apps
