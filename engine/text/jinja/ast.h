// The syntax tree of a template. Immutable once parsed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/jinja/value.h"

namespace sluice::engine::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  enum class Kind : uint8_t {
    constant,     // value
    name,         // text
    list,         // parts
    tuple,        // parts
    dict,         // parts: key, value, key, value, …
    attribute,    // parts[0] . text
    subscript,    // parts[0] [ parts[1] ]
    slice,        // parts[0] [ parts[1] : parts[2] : parts[3] ], of which 1 to 3 may be null
    call,         // parts[0] ( parts[1..], named )
    filter,       // parts[0] | text ( parts[1..], named ); parts[0] may be null in a block filter
    test,         // parts[0] is text ( parts[1..], named )
    negate,       // not parts[0]
    minus,        // - parts[0]
    plus,         // + parts[0]
    both,         // parts[0] and parts[1]
    either,       // parts[0] or parts[1]
    comparison,   // parts[0] names[0] parts[1] names[1] parts[2] …
    concat,       // parts[0] ~ parts[1] ~ …
    arithmetic,   // parts[0] text parts[1]
    conditional,  // parts[0] if parts[1] else parts[2]; the last may be null
  };
  Kind kind;
  int line = 0;
  int depth = 1;  // of the tree below, this included
  std::string text;
  Value value;
  std::vector<ExpressionPtr> parts;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  std::vector<std::string> names;
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

struct MacroNode {
  std::string name;
  std::vector<std::pair<std::string, ExpressionPtr>> parameters;  // with defaults, null for none
  Body body;
};

struct Statement {
  enum class Kind : uint8_t {
    data,         // text
    print,        // expression
    condition,    // branches, otherwise
    loop,         // names in expression [if condition]: body, otherwise where nothing ran
    assign,       // names = expression; names[0] may be "space.attribute"
    assign_body,  // names[0] = what body writes, through expression's filters if any
    macro,        // macro
    group,        // body: {% generation %}
    break_loop,
    continue_loop,
  };
  Kind kind;
  int line = 0;
  std::string text;
  ExpressionPtr expression, condition;
  std::vector<std::string> names;
  std::vector<std::pair<ExpressionPtr, Body>> branches;
  Body body, otherwise;
  std::unique_ptr<MacroNode> macro;
};

}  // namespace sluice::engine::jinja
