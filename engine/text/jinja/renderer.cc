#include "engine/text/jinja/renderer.h"

#include <algorithm>
#include <optional>

#include "engine/text/jinja/builtins.h"
#include "engine/text/utf8.h"

namespace sluice::engine::jinja {
namespace {

using ValueKind = jinja::Kind;

}  // namespace

// A scope within the current one, for as long as the object lives.
class Renderer::Inner {
 public:
  Inner(Renderer& renderer, const Scope* parent) : renderer_(renderer), outer_(renderer.scope_) {
    scope_.parent = parent;
    renderer_.scope_ = &scope_;
  }
  Inner(const Inner&) = delete;
  Inner& operator=(const Inner&) = delete;
  ~Inner() { renderer_.scope_ = outer_; }

 private:
  Renderer& renderer_;
  Scope* outer_;
  Scope scope_;
};

void Renderer::Scope::set(std::string_view name, Value value) {
  for (auto& [key, old] : variables) {
    if (key == name) return static_cast<void>(old = std::move(value));
  }
  variables.emplace_back(name, std::move(value));
}

std::string Renderer::render(const Body& body) {
  execute(body);
  return std::move(out_);
}

void Renderer::emit(std::string_view text) {
  if (!run_.spend_bytes(text.size()) || !run_.may_hold(text.size())) return;
  run_.memory().used += text.size();
  out_ += text;
}

Value Renderer::capture(const Body& body) {
  std::string outer = std::exchange(out_, {});
  execute(body);
  std::string inner = std::exchange(out_, std::move(outer));
  run_.memory().used -= inner.size();
  return run_.text(std::move(inner));
}

Renderer::Flow Renderer::execute(const Body& body) {
  const Deeper deeper(run_);
  for (const auto& statement : body) {
    if (!run_.spend(1)) return Flow::on;
    const Flow flow = execute(*statement);
    if (flow != Flow::on) return flow;
  }
  return Flow::on;
}

Renderer::Flow Renderer::execute(const Statement& statement) {
  using Node = Statement::Kind;
  run_.line = statement.line;
  switch (statement.kind) {
    case Node::data: emit(statement.text); break;
    case Node::print: {
      const Value value = evaluate(*statement.expression);
      emit(value.is(ValueKind::string) ? std::string_view(value.string()) : std::string_view(to_text(run_, value)));
      break;
    }
    case Node::condition: return condition(statement);
    case Node::loop: return loop(statement);
    case Node::assign: assign(statement, evaluate(*statement.expression)); break;
    case Node::assign_body: {
      block_text_ = capture(statement.body);
      assign(statement, statement.expression ? evaluate(*statement.expression) : block_text_);
      break;
    }
    case Node::macro: scope_->set(statement.macro->name, statement.macro.get()); break;
    case Node::group: return execute(statement.body);
    case Node::break_loop: return Flow::leave_loop;
    case Node::continue_loop: return Flow::next_round;
  }
  return Flow::on;
}

Renderer::Flow Renderer::condition(const Statement& statement) {
  for (const auto& [test, body] : statement.branches) {
    const bool holds = truth(evaluate(*test));
    if (!run_.ok()) return Flow::on;
    if (holds) return execute(body);
  }
  return execute(statement.otherwise);
}

Items Renderer::loop_items(const Statement& statement) {
  const Value all = iterate(run_, evaluate(*statement.expression));
  if (!run_.ok()) return {};
  if (!statement.condition) return all.list();
  Items chosen;
  for (const Value& item : all.list()) {
    const Inner inner(*this, scope_);
    bind(statement.names, item);
    if (truth(evaluate(*statement.condition))) chosen.push_back(item);
    if (!run_.spend(1)) return {};
  }
  return chosen;
}

Renderer::Flow Renderer::loop(const Statement& statement) {
  const Value items = run_.list(loop_items(statement));
  if (!run_.ok()) return Flow::on;
  if (items.list().empty()) return execute(statement.otherwise);
  for (size_t i = 0; i < items.list().size() && run_.spend(2); ++i) {
    const Inner inner(*this, scope_);
    scope_->set("loop", std::make_shared<const Loop>(Loop{items, i}));
    bind(statement.names, items.list()[i]);
    if (execute(statement.body) == Flow::leave_loop) break;
  }
  return Flow::on;
}

void Renderer::bind(const std::vector<std::string>& names, const Value& value) {
  if (!run_.spend(names.size() * (1 + scope_->variables.size() / 8))) return;
  if (names.size() == 1) return scope_->set(names[0], value);
  const Value parts = iterate(run_, value);
  if (!run_.ok()) return;
  if (parts.list().size() != names.size()) {
    run_.fail(Code::corrupt, "{} values cannot be given to {} names", parts.list().size(), names.size());
    return;
  }
  for (size_t i = 0; i < names.size(); ++i) scope_->set(names[i], parts.list()[i]);
}

void Renderer::assign(const Statement& statement, const Value& value) {
  if (!run_.ok()) return;
  const std::string& name = statement.names[0];
  const size_t dot = name.find('.');
  if (dot == std::string::npos) return bind(statement.names, value);
  const Value space = lookup(std::string_view(name).substr(0, dot));
  if (!run_.ok()) return;
  if (!space.is(ValueKind::space)) {
    run_.fail(Code::corrupt, "cannot set an attribute of a value of type {}", type_name(space));
    return;
  }
  const std::string_view attribute_name = std::string_view(name).substr(dot + 1);
  if (!run_.spend(1 + space.space().attributes.size() / 8)) return;
  for (auto& [key, old] : space.space().attributes) {
    if (key == attribute_name) return static_cast<void>(old = value);
  }
  space.space().attributes.emplace_back(attribute_name, value);
}

Value Renderer::lookup(std::string_view name) {
  for (const Scope* scope = scope_; scope; scope = scope->parent) {
    for (const auto& [key, value] : scope->variables) {
      if (key == name) return value;
    }
    if (!run_.spend(1 + scope->variables.size() / 8)) return {};
  }
  if (is_function(name)) return Function{name};
  return run_.undefined(name);
}

Value Renderer::evaluate(const Expression& x) {
  using Node = Expression::Kind;
  const Deeper deeper(run_);
  if (!deeper || !run_.spend(1)) return {};
  switch (x.kind) {
    case Node::constant: return x.value;
    case Node::name: return lookup(x.text);
    case Node::list:
    case Node::tuple: return make_list(x);
    case Node::dict: return make_dict(x);
    case Node::attribute: return attribute(run_, evaluate(*x.parts[0]), x.text);
    case Node::subscript: {
      const Value base = evaluate(*x.parts[0]);
      return subscript(run_, base, evaluate(*x.parts[1]));
    }
    case Node::slice: return slice(x);
    case Node::call: return call(x);
    case Node::filter: return filter(x);
    case Node::test: {
      const Value value = evaluate(*x.parts[0]);
      return apply_test(run_, x.text, value, arguments(x));
    }
    case Node::negate: return !truth(evaluate(*x.parts[0]));
    case Node::minus:
    case Node::plus: return sign(x);
    case Node::both: {
      Value left = evaluate(*x.parts[0]);
      return truth(left) ? evaluate(*x.parts[1]) : left;
    }
    case Node::either: {
      Value left = evaluate(*x.parts[0]);
      return truth(left) ? left : evaluate(*x.parts[1]);
    }
    case Node::comparison: return comparison(x);
    case Node::concat: return concat(x);
    case Node::arithmetic: {
      const Value left = evaluate(*x.parts[0]), right = evaluate(*x.parts[1]);
      return run_.ok() ? arithmetic(run_, x.text, left, right) : Value();
    }
    case Node::conditional:
      if (truth(evaluate(*x.parts[1]))) return evaluate(*x.parts[0]);
      return x.parts[2] ? evaluate(*x.parts[2]) : Value();
  }
  return {};
}

Value Renderer::make_list(const Expression& x) {
  Items items;
  for (const auto& part : x.parts) items.push_back(evaluate(*part));
  return run_.list(std::move(items), x.kind == Expression::Kind::tuple);
}

Value Renderer::make_dict(const Expression& x) {
  Pairs pairs;
  for (size_t i = 0; i + 1 < x.parts.size() && run_.ok(); i += 2) {
    const Value key = evaluate(*x.parts[i]);
    Value value = evaluate(*x.parts[i + 1]);
    bool known = false;
    for (auto& [k, v] : pairs) {
      if (!equal(run_, k, key)) continue;
      v = std::move(value);
      known = true;
      break;
    }
    if (!known) pairs.emplace_back(key, std::move(value));
  }
  return run_.dict(std::move(pairs));
}

// Python's slices, on lists and on the characters of strings.
Value Renderer::slice(const Expression& x) {
  const Value base = evaluate(*x.parts[0]);
  if (base.is(ValueKind::undefined)) return attribute(run_, base, "");
  if (!base.is(ValueKind::string) && !base.is(ValueKind::list)) {
    return run_.fail(Code::corrupt, "a value of type {} has no slices", type_name(base));
  }
  std::optional<int64_t> bounds[3];
  for (size_t i = 0; i < 3; ++i) {
    const Value bound = x.parts[i + 1] ? evaluate(*x.parts[i + 1]) : Value(None{});
    if (!run_.ok()) return {};
    if (bound.is(ValueKind::integer) || bound.is(ValueKind::boolean)) bounds[i] = bound.integer();
    else if (!bound.is(ValueKind::none))
      return run_.fail(Code::corrupt, "a slice needs integers, not {}", type_name(bound));
  }
  const Value items = iterate(run_, base);
  const int64_t step = bounds[2].value_or(1);
  if (!run_.ok()) return {};
  if (step == 0) return run_.fail(Code::corrupt, "a slice with a step of 0");
  const auto size = static_cast<int64_t>(items.list().size());
  const int64_t least = step > 0 ? 0 : -1, most = step > 0 ? size : size - 1;
  const auto clipped = [&](const std::optional<int64_t>& bound, int64_t fallback) {
    if (!bound) return fallback;
    return std::clamp(*bound < 0 ? std::max(*bound + size, least) : *bound, least, most);
  };
  const int64_t begin = clipped(bounds[0], step > 0 ? 0 : size - 1), end = clipped(bounds[1], step > 0 ? size : -1);
  Items chosen;
  const int64_t stride = std::clamp(step, -size - 1, size + 1);  // longer ones leave the list just the same
  for (int64_t i = begin; stride > 0 ? i < end : i > end; i += stride)
    chosen.push_back(items.list()[static_cast<size_t>(i)]);
  if (base.is(ValueKind::list)) return run_.list(std::move(chosen), base.is_tuple());
  std::string text;
  for (const Value& c : chosen) text += c.string();
  return run_.text(std::move(text));
}

Arguments Renderer::arguments(const Expression& x) {
  Arguments made;
  for (size_t i = 1; i < x.parts.size(); ++i) made.positional.push_back(evaluate(*x.parts[i]));
  for (const auto& [name, part] : x.named) made.named.emplace_back(name, evaluate(*part));
  return made;
}

Value Renderer::filter(const Expression& x) {
  const Value value = x.parts[0] ? evaluate(*x.parts[0]) : block_text_;
  const Arguments given = arguments(x);
  return run_.ok() ? apply_filter(run_, x.text, value, given) : Value();
}

Value Renderer::call(const Expression& x) {
  const Expression& callee = *x.parts[0];
  if (callee.kind != Expression::Kind::attribute) {
    const Value target = evaluate(callee);
    return call_value(target, arguments(x));
  }
  const Value self = evaluate(*callee.parts[0]);
  if (!run_.ok()) return {};
  if (!find_method(self, callee.text).empty()) return call_method(run_, self, callee.text, arguments(x));
  const Value target = attribute(run_, self, callee.text);
  if (run_.ok() && target.is(ValueKind::undefined)) {
    return run_.fail(Code::unsupported, "{} has no method \"{}\" here", type_name(self), callee.text);
  }
  return call_value(target, arguments(x));
}

Value Renderer::call_value(const Value& callee, const Arguments& given) {
  if (!run_.ok()) return {};
  if (callee.is(ValueKind::macro)) return call_macro(callee.macro(), given);
  if (callee.is(ValueKind::function)) return call_function(run_, callee.function_name(), given, now_);
  if (callee.is(ValueKind::undefined)) return run_.fail(Code::corrupt, "'{}' is undefined", callee.missing_name());
  return run_.fail(Code::corrupt, "a value of type {} cannot be called", type_name(callee));
}

Value Renderer::call_macro(const MacroNode& macro, const Arguments& given) {
  if (given.positional.size() > macro.parameters.size()) {
    return run_.fail(Code::corrupt, "the macro {} takes {} arguments, not {}", macro.name, macro.parameters.size(),
                     given.positional.size());
  }
  for (const auto& [name, value] : given.named) {
    const auto same = [&](const auto& parameter) { return parameter.first == name; };
    if (std::any_of(macro.parameters.begin(), macro.parameters.end(), same)) continue;
    return run_.fail(Code::corrupt, "the macro {} has no parameter {}", macro.name, name);
  }
  const Inner inner(*this, &root_);
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const auto& [name, fallback] = macro.parameters[i];
    const Value* value = given.find(i, name);
    scope_->set(name, value ? *value : fallback ? evaluate(*fallback) : run_.undefined(name));
  }
  return capture(macro.body);
}

Value Renderer::comparison(const Expression& x) {
  Value left = evaluate(*x.parts[0]);
  for (size_t i = 0; i < x.names.size(); ++i) {
    Value right = evaluate(*x.parts[i + 1]);
    if (!run_.ok() || !compare_by(x.names[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

bool Renderer::compare_by(std::string_view op, const Value& a, const Value& b) {
  if (op == "==") return equal(run_, a, b);
  if (op == "!=") return !equal(run_, a, b);
  if (op == "in") return contains(run_, b, a);
  if (op == "not in") return !contains(run_, b, a);
  const int order = compare(run_, a, b);
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  return op == ">" ? order > 0 : order >= 0;
}

Value Renderer::concat(const Expression& x) {
  std::string text;
  for (const auto& part : x.parts) {
    text += to_text(run_, evaluate(*part));
    if (!run_.may_hold(text.size())) return {};
  }
  return run_.text(std::move(text));
}

Value Renderer::sign(const Expression& x) {
  const Value value = evaluate(*x.parts[0]);
  if (!run_.ok()) return {};
  if (!value.is_number()) return run_.fail(Code::corrupt, "a sign before a value of type {}", type_name(value));
  if (x.kind == Expression::Kind::plus) return value.is(ValueKind::boolean) ? Value(value.integer()) : value;
  return value.is(ValueKind::real) ? Value(-value.real()) : arithmetic(run_, "-", int64_t{0}, value);
}

}  // namespace sluice::engine::jinja
