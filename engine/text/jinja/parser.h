// Parses a template into its syntax tree.
#pragma once

#include <string_view>

#include "engine/text/jinja/ast.h"
#include "sluice/status.h"

namespace sluice::engine::jinja {

// corrupt: a syntax error, with its line; unsupported: Jinja that is not implemented; over_budget: a
// source of more than 1 MiB or nested deeper than anything real.
Result<Body> parse(std::string_view source);

}  // namespace sluice::engine::jinja
