// Engines as all commands open them, and the token sequences they make of prompts.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "sluice/engine.h"

namespace sluice::apps {

// Warnings are printed; a terminal on stderr shows how loading advances unless `quiet`.
Result<std::unique_ptr<Engine>> open_engine(EngineOptions options, bool quiet);

// What the model wants before a text and the text's tokens, special ones recognized where `special`. A
// text that already begins with the former, as rendered templates may, does not get it twice.
Result<std::vector<int32_t>> with_prefix(const Engine& engine, std::string_view text, bool special);

// invalid_argument, with the way out, where `tokens` do not fit `context`.
Status check_fits(size_t tokens, uint32_t context);

}  // namespace sluice::apps
