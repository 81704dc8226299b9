// Tokens of a template, with white space already controlled as Hugging Face configures Jinja:
// trim_blocks and lstrip_blocks on, one newline at the end of the template dropped.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sluice/status.h"

namespace sluice::engine::jinja {

struct Token {
  enum class Kind : uint8_t {
    data,
    variable_begin,
    variable_end,
    block_begin,
    block_end,
    name,
    string,
    integer,
    real,
    op,
    end
  };
  Kind kind = Kind::end;
  int line = 0;
  std::string text;  // of data and strings the content, of the rest what is written
};

// corrupt names line and what is wrong.
Result<std::vector<Token>> tokenize(std::string_view source);

}  // namespace sluice::engine::jinja
