// The flags that commands share, in llama.cpp's spelling where it has one. Included by the parser alone.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "apps/options.h"

namespace sluice::apps {

struct Range {
  uint64_t low, high;
};

// A whole number.
CLI::Option* add_whole(CLI::App& command, const std::string& names, uint32_t& target, Range range,
                       const std::string& help);
// Whole numbers: "1,8", or the flag several times.
CLI::Option* add_wholes(CLI::App& command, const std::string& names, std::vector<uint32_t>& target, Range range,
                        const std::string& help);
// A path or directory, not empty.
CLI::Option* add_path(CLI::App& command, const std::string& names, std::string& target, const std::string& help);

void add_model_flag(CLI::App& command, std::string& model, const std::string& names = "-m,--model");
void add_engine_flags(CLI::App& command, EngineOptions& options);
// Those of them that are neither the model nor its threads.
void add_memory_flags(CLI::App& command, EngineOptions& options);
void add_trace_flag(CLI::App& command, EngineOptions& options);
void add_text_flags(CLI::App& command, TextSource& text);
void add_generation_flags(CLI::App& command, GenerateOptions& options);

}  // namespace sluice::apps
