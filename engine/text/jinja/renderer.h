// Runs a parsed template.
#pragma once

#include <ctime>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/jinja/ast.h"

namespace sluice::engine::jinja {

// One rendering of one template; the tree must outlive it. What it may spend and how it ended is the
// Run's; output counts as memory held.
class Renderer {
 public:
  // `now` for strftime_now, may be null.
  Renderer(Run& run, const std::tm* now) : run_(run), now_(now), scope_(&root_) {}

  void set(std::string_view name, Value value) { root_.set(name, std::move(value)); }
  std::string render(const Body& body);

 private:
  enum class Flow : uint8_t { on, leave_loop, next_round };

  // Variables of one block; a for has one for each round.
  struct Scope {
    std::vector<std::pair<std::string_view, Value>> variables;
    const Scope* parent = nullptr;
    void set(std::string_view name, Value value);
  };
  class Inner;

  Flow execute(const Body& body);
  Flow execute(const Statement& statement);
  Flow condition(const Statement& statement);
  Flow loop(const Statement& statement);
  Items loop_items(const Statement& statement);
  void assign(const Statement& statement, const Value& value);
  void bind(const std::vector<std::string>& names, const Value& value);
  void emit(std::string_view text);
  // What `body` writes, as a string.
  Value capture(const Body& body);

  Value evaluate(const Expression& x);
  Value lookup(std::string_view name);
  Value make_list(const Expression& x);
  Value make_dict(const Expression& x);
  Value slice(const Expression& x);
  Value call(const Expression& x);
  Value call_value(const Value& callee, const Arguments& arguments);
  Value call_macro(const MacroNode& macro, const Arguments& arguments);
  Value filter(const Expression& x);
  Value comparison(const Expression& x);
  bool compare_by(std::string_view op, const Value& a, const Value& b);
  Value concat(const Expression& x);
  Value sign(const Expression& x);
  Arguments arguments(const Expression& x);

  Run& run_;
  const std::tm* now_;
  Scope root_;
  Scope* scope_;
  std::string out_;
  Value block_text_;  // of {% set x %}…{% endset %}, for its filters
};

}  // namespace sluice::engine::jinja
